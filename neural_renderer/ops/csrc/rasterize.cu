// The rasterizer on CUDA. A depth buffer of 64-bit keys, filled with atomics, decides which face a
// pixel shows, so that the picture does not depend on the order of threads; gradients are summed
// with atomics, so that their last bits do. No torch headers: plain pointers and a stream.
#include "geometry.h"

namespace {

using namespace nr;

constexpr int kThreads = 256;
constexpr int kWarp = 32;  // threads that share one face

// Launches at least `threads` threads, if any.
#define NR_KERNEL(kernel, threads, stream, ...)                                      \
    if (const int64_t blocks = ((threads) + kThreads - 1) / kThreads)                \
    kernel<<<unsigned(blocks), kThreads, 0, stream>>>(__VA_ARGS__)

struct Item {
    int64_t number;  // of the face or pixel that this thread works on
    int lane;        // of the threads that share it
};

__device__ Item this_item(int lanes) {
    const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    return {thread / lanes, int(thread % lanes)};
}

template <class T>
__global__ void draw_faces(const T* faces, int64_t batch, int64_t count, View view,
                           unsigned long long* key) {
    const Item item = this_item(kWarp);
    Triangle t;
    if (item.number >= batch * count || !make_triangle(faces + 9 * item.number, view, &t)) return;
    const int width = t.right - t.left + 1;
    const int64_t area = int64_t(width) * (t.bottom - t.top + 1);
    key += item.number / count * view.size * view.size;
    for (int64_t i = item.lane; i < area; i += kWarp) {
        const int row = t.top + int(i / width), column = t.left + int(i % width);
        Fragment f;
        if (!cover(t, pixel_x(column, view.size), pixel_y(row, view.size), &f)) continue;
        if (!(view.near < f.depth && f.depth < view.far)) continue;
        atomicMin(key + int64_t(row) * view.size + column,
                  static_cast<unsigned long long>(depth_key(f.depth, item.number % count)));
    }
}

template <class T>
__global__ void resolve_pixels(const T* faces, const unsigned long long* key, int64_t batch,
                               int64_t count, View view, int32_t* index, T* weight, T* depth) {
    const int64_t i = this_item(1).number, pixels = int64_t(view.size) * view.size;
    if (i >= batch * pixels) return;
    const int64_t b = i / pixels, pixel = i % pixels;
    Fragment f = {{0, 0, 0}, view.far};
    index[i] = key[i] == kNothing ? -1 : int32_t(uint32_t(key[i]));
    if (index[i] >= 0) {
        Triangle t;
        make_triangle(faces + 9 * (b * count + index[i]), view, &t);
        cover(t, pixel_x(int(pixel % view.size), view.size),
              pixel_y(int(pixel / view.size), view.size), &f);
    }
    for (int k = 0; k < 3; ++k) weight[(b * 3 + k) * pixels + pixel] = T(f.weight[k]);
    depth[i] = T(f.depth);
}

template <class T>
__global__ void depth_backward_pixels(const T* faces, const int32_t* index, const T* grad_depth,
                                      int64_t batch, int64_t count, View view,
                                      double* grad_faces) {
    const int64_t i = this_item(1).number, pixels = int64_t(view.size) * view.size;
    if (i >= batch * pixels || index[i] < 0 || grad_depth[i] == 0) return;
    const int64_t face = 9 * (i / pixels * count + index[i]), pixel = i % pixels;
    double moved[9];
    depth_gradient(faces + face, view, pixel_x(int(pixel % view.size), view.size),
                   pixel_y(int(pixel / view.size), view.size), double(grad_depth[i]), moved);
    for (int k = 0; k < 9; ++k) atomicAdd(grad_faces + face + k, moved[k]);
}

template <class T>
__global__ void sample_pixels(const T* textures, const int32_t* index, const T* weight,
                              const T* background, int64_t batch, int64_t count, int64_t pixels,
                              int cube, T* rgb) {
    const int64_t i = this_item(1).number;
    if (i >= batch * pixels) return;
    const int64_t b = i / pixels, pixel = i % pixels, texels = int64_t(cube) * cube * cube;
    T color[3] = {background[0], background[1], background[2]};
    if (index[i] >= 0) {
        const T* w = weight + b * 3 * pixels + pixel;
        const T barycentric[3] = {w[0], w[pixels], w[2 * pixels]};
        const Texels<T> at = texels_at(barycentric, cube);
        const T* face = textures + (b * count + index[i]) * texels * 3;
        for (int c = 0; c < 3; ++c) {
            color[c] = 0;
            for (int corner = 0; corner < 8; ++corner)
                color[c] += at.share[corner] * face[3 * at.offset[corner] + c];
        }
    }
    for (int c = 0; c < 3; ++c) rgb[(b * 3 + c) * pixels + pixel] = color[c];
}

template <class T>
__global__ void sample_backward_pixels(const int32_t* index, const T* weight, const T* grad_rgb,
                                       int64_t batch, int64_t count, int64_t pixels, int cube,
                                       T* grad_textures) {
    const int64_t i = this_item(1).number;
    if (i >= batch * pixels || index[i] < 0) return;
    const int64_t b = i / pixels, pixel = i % pixels, texels = int64_t(cube) * cube * cube;
    const T* w = weight + b * 3 * pixels + pixel;
    const T* grad = grad_rgb + b * 3 * pixels + pixel;
    const T barycentric[3] = {w[0], w[pixels], w[2 * pixels]};
    const Texels<T> at = texels_at(barycentric, cube);
    T* face = grad_textures + (b * count + index[i]) * texels * 3;
    for (int corner = 0; corner < 8; ++corner)
        for (int c = 0; c < 3; ++c)
            atomicAdd(face + 3 * at.offset[corner] + c, at.share[corner] * grad[c * pixels]);
}

// What one lane finds of d loss / d crossing (see reference.py). The planes are those of one image.
template <class T>
__device__ double slope_at(const Edge& edge, const Crossing& c, int32_t f, int line, int lane,
                           Axis axis, int size, int channels, double least, const int32_t* index,
                           const T* depth, const T* image, const T* grad) {
    const int64_t pixels = int64_t(size) * size;
    const int64_t step = axis == kRows ? 1 : size;
    const int64_t start = axis == kRows ? int64_t(line) * size : line;
    if (index[start + c.inside * step] != f) return 0;  // the edge is hidden here
    double sum = 0;
    for (int n = lane; n < size; n += kWarp) {
        const int64_t at = start + n * step;
        const bool beyond = (n - c.inside) * edge.inward < 0;
        if (beyond ? depth[at] < c.depth * (1 - kTie) : index[at] != f) continue;
        const int64_t source = start + (beyond ? c.inside : c.outside) * step;
        double change = 0;
        for (int i = 0; i < channels; ++i)
            change += double(image[i * pixels + source] - image[i * pixels + at]) *
                      double(grad[i * pixels + at]);
        const double gap = n - c.at;
        if (change < 0) sum += change / (gap < 0 ? -fmax(-gap, least) : fmax(gap, least));
    }
    return sum;
}

template <class T>
__global__ void sweep_faces(const T* faces, const int32_t* index, const T* depth, const T* image,
                            const T* grad, int64_t batch, int64_t count, int channels, View view,
                            double eps, T* grad_faces) {
    const Item item = this_item(kWarp);
    Triangle drawn;
    if (item.number >= batch * count || !make_triangle(faces + 9 * item.number, view, &drawn))
        return;
    const int size = view.size;
    const int64_t pixels = int64_t(size) * size, b = item.number / count;
    const T* face = faces + 9 * item.number;
    for (int direction = 0; direction < 2; ++direction) {
        const Axis axis = Axis(direction);
        double along[3], across[3];
        to_lines(face, size, axis, along, across);
        for (int k = 0; k < 3; ++k) {
            const Edge edge = make_edge(face, view, axis, along, across, k);
            double moved[2] = {0, 0};
            for (int line = edge.first; line < edge.end; ++line) {
                Crossing c;
                if (!cross_line(edge, line, size, &c)) continue;
                const double slope = slope_at(
                    edge, c, int32_t(item.number % count), line, item.lane, axis, size, channels,
                    eps * size / 2, index + b * pixels, depth + b * pixels,
                    image + b * channels * pixels, grad + b * channels * pixels);
                moved[0] += (1 - c.share) * slope;
                moved[1] += c.share * slope;
            }
            for (int i = 0; i < 2; ++i)
                if (moved[i] != 0)
                    atomicAdd(grad_faces + 9 * item.number + 3 * ((k + i) % 3) + direction,
                              T(line_scale(size, axis) * moved[i]));
        }
    }
}

template <class T>
void rasterize(const T* faces, int64_t batch, int64_t count, View view, int32_t* index, T* weight,
               T* depth, cudaStream_t stream) {
    const int64_t pixels = batch * view.size * view.size;
    const size_t bytes = pixels * sizeof(uint64_t);
    void* memory = nullptr;
    if (pixels == 0 || cudaMallocAsync(&memory, bytes, stream) != cudaSuccess) return;
    cudaMemsetAsync(memory, 0xff, bytes, stream);  // kNothing everywhere
    auto* key = static_cast<unsigned long long*>(memory);
    NR_KERNEL(draw_faces<T>, batch * count * kWarp, stream, faces, batch, count, view, key);
    NR_KERNEL(resolve_pixels<T>, pixels, stream, faces, key, batch, count, view, index, weight,
              depth);
    cudaFreeAsync(memory, stream);
}

template <class T>
void depth_backward(const T* faces, const int32_t* index, const T* grad_depth, int64_t batch,
                    int64_t count, View view, double* grad_faces, cudaStream_t stream) {
    NR_KERNEL(depth_backward_pixels<T>, batch * view.size * view.size, stream, faces, index,
              grad_depth, batch, count, view, grad_faces);
}

template <class T>
void sample(const T* textures, const int32_t* index, const T* weight, const T* background,
            int64_t batch, int64_t count, int64_t pixels, int cube, T* rgb, cudaStream_t stream) {
    NR_KERNEL(sample_pixels<T>, batch * pixels, stream, textures, index, weight, background, batch,
              count, pixels, cube, rgb);
}

template <class T>
void sample_backward(const int32_t* index, const T* weight, const T* grad_rgb, int64_t batch,
                     int64_t count, int64_t pixels, int cube, T* grad_textures,
                     cudaStream_t stream) {
    NR_KERNEL(sample_backward_pixels<T>, batch * pixels, stream, index, weight, grad_rgb, batch,
              count, pixels, cube, grad_textures);
}

template <class T>
void sweep(const T* faces, const int32_t* index, const T* depth, const T* image, const T* grad,
           int64_t batch, int64_t count, int channels, View view, double eps, T* grad_faces,
           cudaStream_t stream) {
    NR_KERNEL(sweep_faces<T>, batch * count * kWarp, stream, faces, index, depth, image, grad,
              batch, count, channels, view, eps, grad_faces);
}

// Runs `call(stream)` on a device; returns what went wrong, or null.
template <class Call>
const char* run(int device, void* stream, const Call& call) {
    cudaSetDevice(device);
    call(static_cast<cudaStream_t>(stream));
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

#include "interface.h"
