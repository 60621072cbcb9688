// The mathematics of one triangle, one pixel and one edge, shared by the CPU and the CUDA op.
//
// A vertex (x, y, z) on the screen has the homogeneous position (x h, y h, h), with h = z under a
// perspective projection and h = 1 under a parallel one. The edge function E_k of a triangle is
// the plane through the origin and the two vertices other than k (Olano and Greer, "Triangle scan
// conversion using 2D homogeneous coordinates", 1997). At the pixel center (x, y, 1) the three are
// proportional to the barycentric weights in space, which makes them perspective-correct, and
// right also for a triangle that passes behind the camera. They are computed in double precision:
// then neighbors agree to the sign on the edge that they share, and leave no crack.
#pragma once
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define NR_SHARED __host__ __device__ inline
#else
#define NR_SHARED inline
#endif

namespace nr {

// The lowest 64-bit key wins a pixel: depth in the high half, face in the low one.
constexpr uint64_t kNothing = ~0ull;

struct View {
    int size;         // the image is size x size pixels
    int perspective;  // 1: h = z, 0: h = 1
    double near, far;
};

struct Triangle {
    double edge[3][3];  // E_k(x, y) = edge[k] . (x, y, 1)
    double z[3];
    int left, right, top, bottom;  // pixels it may cover, both ends included
};

struct Fragment {
    double weight[3];
    double depth;
};

NR_SHARED double pixel_x(int column, int size) { return double(2 * column + 1 - size) / size; }
NR_SHARED double pixel_y(int row, int size) { return double(size - 1 - 2 * row) / size; }

NR_SHARED void cross(const double a[3], const double b[3], double out[3]) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

template <class T>
NR_SHARED void homogeneous(const T* face, const View& view, double point[3][3]) {
    for (int k = 0; k < 3; ++k) {
        const double h = view.perspective ? double(face[3 * k + 2]) : 1.0;
        point[k][0] = face[3 * k] * h;
        point[k][1] = face[3 * k + 1] * h;
        point[k][2] = h;
    }
}

NR_SHARED void edge_functions(const double point[3][3], double edge[3][3]) {
    for (int k = 0; k < 3; ++k) cross(point[(k + 1) % 3], point[(k + 2) % 3], edge[k]);
}

// The whole pixels within [low, high], given as coordinates in [-1, 1] that grow with the index.
NR_SHARED void pixel_range(double low, double high, int size, int* first, int* last) {
    const double slack = 1e-6;  // the edge functions decide; the box must only not be too small
    const double a = ceil(((low + 1) * size - 1) / 2 - slack);
    const double b = floor(((high + 1) * size - 1) / 2 + slack);
    *first = int(fmin(fmax(a, 0.0), double(size)));
    *last = int(fmin(fmax(b, -1.0), double(size - 1)));
}

// False for a face that draws nothing: seen from behind, degenerate, not finite, off screen, or
// wholly behind the camera.
template <class T>
NR_SHARED bool make_triangle(const T* face, const View& view, Triangle* out) {
    double point[3][3];
    homogeneous(face, view, point);
    edge_functions(point, out->edge);
    const double* e = out->edge[0];
    const double area = point[0][0] * e[0] + point[0][1] * e[1] + point[0][2] * e[2];
    if (!(area > 0) || std::isinf(area)) return false;

    double low[2] = {1e300, 1e300}, high[2] = {-1e300, -1e300};
    int in_front = 0;
    for (int k = 0; k < 3; ++k) {
        out->z[k] = face[3 * k + 2];
        in_front += point[k][2] > 0;
        for (int axis = 0; axis < 2; ++axis) {
            low[axis] = fmin(low[axis], double(face[3 * k + axis]));
            high[axis] = fmax(high[axis], double(face[3 * k + axis]));
        }
    }
    if (in_front == 0) return false;
    if (in_front < 3) low[0] = low[1] = -1, high[0] = high[1] = 1;  // its screen box is unbounded
    pixel_range(low[0], high[0], view.size, &out->left, &out->right);
    pixel_range(-high[1], -low[1], view.size, &out->top, &out->bottom);
    return out->left <= out->right && out->top <= out->bottom;
}

// False where the triangle does not cover the point (x, y).
NR_SHARED bool cover(const Triangle& t, double x, double y, Fragment* out) {
    double e[3];
    for (int k = 0; k < 3; ++k) e[k] = t.edge[k][0] * x + (t.edge[k][1] * y + t.edge[k][2]);
    if (e[0] < 0 || e[1] < 0 || e[2] < 0) return false;
    const double sum = e[0] + e[1] + e[2];
    if (!(sum > 0)) return false;
    for (int k = 0; k < 3; ++k) out->weight[k] = e[k] / sum;
    out->depth = out->weight[0] * t.z[0] + out->weight[1] * t.z[1] + out->weight[2] * t.z[2];
    return true;
}

// Depths are compared in single precision, ties go to the face that comes first.
NR_SHARED uint64_t depth_key(double depth, uint32_t face) {
    union { float value; uint32_t bits; } nearest = {float(depth)};
    return uint64_t(nearest.bits) << 32 | face;
}

// d depth / d (x, y, z) of the three vertices at the pixel (x, y), times `grad`.
template <class T>
NR_SHARED void depth_gradient(const T* face, const View& view, double x, double y, double grad,
                              double out[9]) {
    double point[3][3], edge[3][3], moved[3][3] = {};
    homogeneous(face, view, point);
    edge_functions(point, edge);
    const double pixel[3] = {x, y, 1};
    double e[3], sum = 0, depth = 0;
    for (int k = 0; k < 3; ++k) {
        e[k] = edge[k][0] * x + (edge[k][1] * y + edge[k][2]);
        sum += e[k];
    }
    for (int k = 0; k < 3; ++k) depth += e[k] / sum * face[3 * k + 2];
    for (int k = 0; k < 3; ++k) {  // E_k = (P_a x P_b) . p = P_a . (P_b x p) = P_b . (p x P_a)
        const int a = (k + 1) % 3, b = (k + 2) % 3;
        const double grad_e = grad * (face[3 * k + 2] - depth) / sum;
        double to_a[3], to_b[3];
        cross(point[b], pixel, to_a);
        cross(pixel, point[a], to_b);
        for (int i = 0; i < 3; ++i) {
            moved[a][i] += grad_e * to_a[i];
            moved[b][i] += grad_e * to_b[i];
        }
    }
    for (int k = 0; k < 3; ++k) {
        const double *m = moved[k], h = point[k][2];
        const double grad_h = m[0] * face[3 * k] + m[1] * face[3 * k + 1] + m[2];
        out[3 * k] = m[0] * h;
        out[3 * k + 1] = m[1] * h;
        out[3 * k + 2] = grad * e[k] / sum + (view.perspective ? grad_h : 0.0);
    }
}

// The eight texels around barycentric weights in a texture cube, and their trilinear shares.
template <class T>
struct Texels {
    int offset[8];
    T share[8];
};

template <class T>
NR_SHARED Texels<T> texels_at(const T weight[3], int size) {
    int cell[3];
    T part[3];
    for (int k = 0; k < 3; ++k) {
        const T position = weight[k] * (size - 1);
        const int last = size > 1 ? size - 2 : 0;
        cell[k] = int(position) < last ? int(position) : last;
        part[k] = position - cell[k];
    }
    Texels<T> out;
    for (int corner = 0; corner < 8; ++corner) {
        T share = 1;
        int offset = 0;
        for (int k = 0; k < 3; ++k) {
            const int far_side = size > 1 ? corner >> (2 - k) & 1 : 0;
            share *= (corner >> (2 - k) & 1) ? part[k] : 1 - part[k];
            offset = offset * size + cell[k] + far_side;
        }
        out.offset[corner] = offset;
        out.share[corner] = share;
    }
    return out;
}

// A direction in which edges are swept: along the rows of the image (0) or along its columns (1).
// In pixels, `along` runs along these lines, `across` counts them.
enum Axis { kRows = 0, kColumns = 1 };

template <class T>
NR_SHARED void to_lines(const T* face, int size, Axis axis, double along[3], double across[3]) {
    for (int k = 0; k < 3; ++k) {
        const double column = (double(face[3 * k]) + 1) * size / 2 - 0.5;
        const double row = (1 - double(face[3 * k + 1])) * size / 2 - 0.5;
        along[k] = axis == kRows ? column : row;
        across[k] = axis == kRows ? row : column;
    }
}

// d along / d (x or y), in pixels per screen unit.
NR_SHARED double line_scale(int size, Axis axis) {
    return axis == kRows ? size / 2.0 : -size / 2.0;
}

// One edge of a drawn face, from its vertex k to the next.
struct Edge {
    double along[2], across[2], z[2];
    int perspective;
    int inward;       // +1 where the face lies toward larger positions on a line, else -1
    int first, end;   // the lines that it crosses
};

// Where an edge crosses one line of pixels.
struct Crossing {
    double at;            // position along the line
    double share;         // by which `at` follows the edge's second vertex; the first has 1 - share
    double depth;
    int inside, outside;  // the pixels on either side of the edge
};

// The first and the last of the integers in [low, high) that exist.
NR_SHARED void line_range(double low, double high, int size, int* first, int* end) {
    *first = int(fmin(fmax(ceil(low), 0.0), double(size)));
    *end = int(fmin(fmax(ceil(high), 0.0), double(size)));
}

// An edge that passes behind the camera has no end to pull on; it crosses no line.
template <class T>
NR_SHARED Edge make_edge(const T* face, const View& view, Axis axis, const double along[3],
                         const double across[3], int k) {
    Edge e;
    e.perspective = view.perspective;
    for (int i = 0; i < 2; ++i) {
        const int vertex = (k + i) % 3;
        e.along[i] = along[vertex];
        e.across[i] = across[vertex];
        e.z[i] = face[3 * vertex + 2];
    }
    e.inward = (e.across[1] > e.across[0]) == (axis == kRows) ? 1 : -1;
    line_range(fmin(e.across[0], e.across[1]), fmax(e.across[0], e.across[1]), view.size, &e.first,
               &e.end);
    if (view.perspective && !(e.z[0] > 0 && e.z[1] > 0)) e.end = e.first;
    return e;
}

// False if a pixel on either side of the edge is not in the image.
NR_SHARED bool cross_line(const Edge& e, int line, int size, Crossing* c) {
    c->share = (line - e.across[0]) / (e.across[1] - e.across[0]);
    c->at = e.along[0] + c->share * (e.along[1] - e.along[0]);
    const double inside = e.inward > 0 ? ceil(c->at) : floor(c->at);
    c->inside = int(fmin(fmax(inside, -2.0), 2.0 * size));
    c->outside = c->inside - e.inward;
    const double a = (1 - c->share) / (e.perspective ? e.z[0] : 1.0);
    const double b = c->share / (e.perspective ? e.z[1] : 1.0);
    c->depth = (a * e.z[0] + b * e.z[1]) / (a + b);
    return c->inside >= 0 && c->inside < size && c->outside >= 0 && c->outside < size;
}

// Depths that differ by less, relatively, hide nothing from each other.
constexpr double kTie = 1e-4;

}  // namespace nr
