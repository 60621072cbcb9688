// The rasteriser on CPU: triangles are sorted into tiles of the image, threads share the tiles.
// Every result has one owner among the tasks, so that nothing depends on the order of threads.
#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "geometry.h"

// Compiles a function also for wider vectors, and picks the version that the processor can run.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define NR_VERSIONS __attribute__((target_clones("avx2", "default")))
#else
#define NR_VERSIONS
#endif

namespace {

using namespace nr;

constexpr int kTile = 32;
constexpr int64_t kBlock = 512;

template <class Task>
void parallel_for(int64_t count, int threads, const Task& task) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> out_of_memory{false};
    const auto work = [&] {
        try {
            for (int64_t i; (i = next++) < count;) task(i);
        } catch (const std::bad_alloc&) {
            out_of_memory = true;
        }
    };
    std::vector<std::thread> helpers;
    try {
        while (int64_t(helpers.size()) + 1 < std::min<int64_t>(threads, count))
            helpers.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads to be had: go on with those we have
    }
    work();
    for (auto& helper : helpers) helper.join();
    if (out_of_memory) throw std::bad_alloc();
}

// task(first, end) over blocks of [0, count).
template <class Task>
void parallel_blocks(int64_t count, int threads, const Task& task) {
    parallel_for((count + kBlock - 1) / kBlock, threads, [&](int64_t block) {
        task(block * kBlock, std::min(count, (block + 1) * kBlock));
    });
}

// The faces that may touch each tile of one image, in ascending order, as compressed rows.
struct Bins {
    std::vector<int64_t> start;
    std::vector<int32_t> face;

    void fill(const Triangle* triangles, int64_t faces, int tiles) {
        start.assign(int64_t(tiles) * tiles + 1, 0);
        each(triangles, faces, tiles, [&](int tile, int32_t) { ++start[tile + 1]; });
        for (size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
        face.resize(start.back());
        std::vector<int64_t> next(start.begin(), start.end() - 1);
        each(triangles, faces, tiles, [&](int tile, int32_t f) { face[next[tile]++] = f; });
    }

    template <class Visit>
    static void each(const Triangle* triangles, int64_t faces, int tiles, const Visit& visit) {
        for (int64_t f = 0; f < faces; ++f) {
            const Triangle& t = triangles[f];
            for (int row = t.top / kTile; row <= t.bottom / kTile; ++row)
                for (int column = t.left / kTile; column <= t.right / kTile; ++column)
                    visit(row * tiles + column, int32_t(f));
        }
    }
};

struct Tile {
    int left, right, top, bottom;  // both ends included
    uint64_t key[kTile][kTile];

    Tile(int number, int tiles, int size)
        : left(number % tiles * kTile),
          right(std::min(left + kTile, size) - 1),
          top(number / tiles * kTile),
          bottom(std::min(top + kTile, size) - 1) {
        std::fill_n(&key[0][0], kTile * kTile, kNothing);
    }

    void draw(const Triangle& t, int32_t face, const View& view) {
        for (int row = std::max(top, t.top); row <= std::min(bottom, t.bottom); ++row) {
            const double y = pixel_y(row, view.size);
            const int end = std::min(right, t.right);
            for (int column = std::max(left, t.left); column <= end; ++column) {
                Fragment fragment;
                if (!cover(t, pixel_x(column, view.size), y, &fragment)) continue;
                if (!(view.near < fragment.depth && fragment.depth < view.far)) continue;
                uint64_t& nearest = key[row - top][column - left];
                nearest = std::min(nearest, depth_key(fragment.depth, face));
            }
        }
    }
};

template <class T>
void rasterize(const T* faces, int64_t batch, int64_t count, View view, int32_t* index, T* weight,
               T* depth, int threads) {
    // Not a vector, which would spend time on clearing what is about to be overwritten.
    const std::unique_ptr<Triangle[]> triangles(new Triangle[batch * count]);
    parallel_blocks(batch * count, threads, [&](int64_t first, int64_t end) {
        for (int64_t f = first; f < end; ++f)
            if (!make_triangle(faces + 9 * f, view, &triangles[f]))
                triangles[f].top = 0, triangles[f].bottom = -kTile;  // touches no tile
    });

    const int tiles = (view.size + kTile - 1) / kTile;
    std::vector<Bins> bins(batch);
    parallel_for(batch, threads,
                 [&](int64_t b) { bins[b].fill(&triangles[b * count], count, tiles); });

    const int64_t pixels = int64_t(view.size) * view.size;
    parallel_for(batch * tiles * tiles, threads, [&](int64_t task) {
        const int64_t b = task / (tiles * tiles);
        const int number = int(task % (tiles * tiles));
        Tile tile(number, tiles, view.size);
        for (int64_t i = bins[b].start[number]; i < bins[b].start[number + 1]; ++i) {
            const int32_t f = bins[b].face[i];
            tile.draw(triangles[b * count + f], f, view);
        }
        for (int row = tile.top; row <= tile.bottom; ++row)
            for (int column = tile.left; column <= tile.right; ++column) {
                const uint64_t key = tile.key[row - tile.top][column - tile.left];
                const int64_t pixel = int64_t(row) * view.size + column;
                Fragment fragment = {{0, 0, 0}, view.far};
                index[b * pixels + pixel] = key == kNothing ? -1 : int32_t(uint32_t(key));
                if (key != kNothing)
                    cover(triangles[b * count + uint32_t(key)], pixel_x(column, view.size),
                          pixel_y(row, view.size), &fragment);
                for (int k = 0; k < 3; ++k)
                    weight[(b * 3 + k) * pixels + pixel] = T(fragment.weight[k]);
                depth[b * pixels + pixel] = T(fragment.depth);
            }
    });
}

// visit(b, f, pixel) at each pixel that shows a face, each face always by the same task: its
// gradient then has one writer, and needs neither locks nor copies.
template <class Visit>
void parallel_by_face(const int32_t* index, int64_t batch, int64_t pixels, int threads,
                      const Visit& visit) {
    parallel_for(batch * threads, threads, [&](int64_t task) {
        const int64_t b = task / threads;
        const uint32_t owner = uint32_t(task % threads);
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            const int32_t f = index[b * pixels + pixel];
            if (f >= 0 && uint32_t(f) % uint32_t(threads) == owner) visit(b, f, pixel);
        }
    });
}

template <class T>
void depth_backward(const T* faces, const int32_t* index, const T* grad_depth, int64_t batch,
                    int64_t count, View view, double* grad_faces, int threads) {
    const int64_t pixels = int64_t(view.size) * view.size;
    parallel_by_face(index, batch, pixels, threads, [&](int64_t b, int32_t f, int64_t pixel) {
        const double grad = grad_depth[b * pixels + pixel];
        if (grad == 0) return;
        double moved[9];
        const int64_t face = 9 * (b * count + f);
        const double x = pixel_x(int(pixel % view.size), view.size);
        const double y = pixel_y(int(pixel / view.size), view.size);
        depth_gradient(faces + face, view, x, y, grad, moved);
        for (int i = 0; i < 9; ++i) grad_faces[face + i] += moved[i];
    });
}

template <class T>
void sample(const T* textures, const int32_t* index, const T* weight, const T* background,
            int64_t batch, int64_t count, int64_t pixels, int cube, T* rgb, int threads) {
    const int64_t texels = int64_t(cube) * cube * cube;
    parallel_blocks(batch * pixels, threads, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i) {
            const int64_t b = i / pixels, pixel = i % pixels;
            T colour[3] = {background[0], background[1], background[2]};
            if (index[i] >= 0) {
                const T* w = weight + b * 3 * pixels + pixel;
                const T barycentric[3] = {w[0], w[pixels], w[2 * pixels]};
                const Texels<T> at = texels_at(barycentric, cube);
                const T* face = textures + (b * count + index[i]) * texels * 3;
                colour[0] = colour[1] = colour[2] = 0;
                for (int corner = 0; corner < 8; ++corner)
                    for (int c = 0; c < 3; ++c)
                        colour[c] += at.share[corner] * face[3 * at.offset[corner] + c];
            }
            for (int c = 0; c < 3; ++c) rgb[(b * 3 + c) * pixels + pixel] = colour[c];
        }
    });
}

template <class T>
void sample_backward(const int32_t* index, const T* weight, const T* grad_rgb, int64_t batch,
                     int64_t count, int64_t pixels, int cube, T* grad_textures, int threads) {
    const int64_t texels = int64_t(cube) * cube * cube;
    parallel_by_face(index, batch, pixels, threads, [&](int64_t b, int32_t f, int64_t pixel) {
        const T* w = weight + b * 3 * pixels + pixel;
        const T* grad = grad_rgb + b * 3 * pixels + pixel;
        const T barycentric[3] = {w[0], w[pixels], w[2 * pixels]};
        const Texels<T> at = texels_at(barycentric, cube);
        T* face = grad_textures + (b * count + f) * texels * 3;
        for (int corner = 0; corner < 8; ++corner)
            for (int c = 0; c < 3; ++c)
                face[3 * at.offset[corner] + c] += at.share[corner] * grad[c * pixels];
    });
}

// One line of pixels of an image with C channels, each `stride` after the last.
template <class T, int C>
struct Line {
    const int32_t* index;
    const T *depth, *image, *grad, *loss;
    int64_t stride;

    // The sum over pixels [begin, end) of the drop of the loss if they took on the colour of pixel
    // `source`, per distance from `at`; `counts` says which pixels take part (see reference.py).
    template <class Counts>
    __attribute__((always_inline)) T swept(int source, double at, int begin, int end, T least, const Counts& counts) const {
        T colour[C];
        for (int c = 0; c < C; ++c) colour[c] = image[c * stride + source];
        const T edge = T(at);
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int n = begin; n < end; ++n) {
            T change = -loss[n];
            for (int c = 0; c < C; ++c) change += colour[c] * grad[c * stride + n];
            const T gap = std::abs(T(n) - edge);
            const T slope = change / (gap > least ? gap : least);
            sum += (change < 0) & counts(n) ? slope : T(0);
        }
        return sum;
    }
};

template <class T, int C>
NR_VERSIONS void sweep_face(const Sweep<T>& s, int64_t b, int32_t f, double* grad_along) {
    const int64_t base = 3 * (b * s.count + f), pixels = int64_t(s.size) * s.size;
    const double *along = s.along + base, *across = s.across + base, *z = s.z + base;
    const bool in_front = !s.perspective || (z[0] > 0 && z[1] > 0 && z[2] > 0);
    int low = 0, high = s.size;  // where along a line the face can lie
    if (in_front)
        line_range(std::min({along[0], along[1], along[2]}),
                   std::max({along[0], along[1], along[2]}) + 1, s.size, &low, &high);
    for (int k = 0; k < 3; ++k) {
        const int ends[2] = {k, (k + 1) % 3};
        const double edge_along[2] = {along[ends[0]], along[ends[1]]};
        const double edge_across[2] = {across[ends[0]], across[ends[1]]};
        const double edge_z[2] = {z[ends[0]], z[ends[1]]};
        if (s.perspective && !(edge_z[0] > 0 && edge_z[1] > 0)) continue;
        const int inward = edge_across[1] > edge_across[0] ? s.orientation : -s.orientation;
        int first, end;
        line_range(std::min(edge_across[0], edge_across[1]),
                   std::max(edge_across[0], edge_across[1]), s.size, &first, &end);
        for (int l = first; l < end; ++l) {
            const Crossing c =
                cross_line(edge_along, edge_across, edge_z, s.perspective, l, inward);
            if (std::min(c.inside, c.outside) < 0) continue;
            if (std::max(c.inside, c.outside) >= s.size) continue;
            const int64_t row = b * pixels + int64_t(l) * s.size;
            const int64_t planes = b * C * pixels + int64_t(l) * s.size;
            const Line<T, C> line = {s.index + row,    s.depth + row, s.image + planes,
                                     s.grad + planes,  s.loss + row,  pixels};
            if (line.index[c.inside] != f) continue;  // the edge is hidden here
            const T behind = T(c.depth * (1 - 1e-4)), least = T(s.least);
            const auto not_hidden = [&](int n) { return line.depth[n] >= behind; };
            const auto shown = [&](int n) { return line.index[n] == f; };
            T slope;  // of the loss as the edge moves along the line
            if (inward > 0)
                slope = line.swept(c.outside, c.at, c.inside, high, least, shown) -
                        line.swept(c.inside, c.at, 0, c.inside, least, not_hidden);
            else
                slope = line.swept(c.inside, c.at, c.outside, s.size, least, not_hidden) -
                        line.swept(c.outside, c.at, low, c.outside, least, shown);
            grad_along[base + ends[0]] += (1 - c.share) * slope;
            grad_along[base + ends[1]] += c.share * slope;
        }
    }
}

template <class T, int C>
void sweep(const Sweep<T>& s, double* grad_along, int threads) {
    std::vector<uint8_t> visible(s.batch * s.count, 0);
    const int64_t pixels = int64_t(s.size) * s.size;
    for (int64_t i = 0; i < s.batch * pixels; ++i)
        if (s.index[i] >= 0) visible[i / pixels * s.count + s.index[i]] = 1;
    parallel_blocks(s.batch * s.count, threads, [&](int64_t first, int64_t end) {
        for (int64_t i = first; i < end; ++i)
            if (visible[i]) sweep_face<T, C>(s, i / s.count, int32_t(i % s.count), grad_along);
    });
}

template <class T>
void sweep(const Sweep<T>& s, int channels, double* grad_along, int threads) {
    if (channels == 1) sweep<T, 1>(s, grad_along, threads);
    if (channels == 3) sweep<T, 3>(s, grad_along, threads);
    if (channels == 4) sweep<T, 4>(s, grad_along, threads);
}

// Runs `call(threads)`; returns what went wrong, or null.
template <class Call>
const char* run(int threads, void*, const Call& call) {
    try {
        call(threads);
    } catch (const std::bad_alloc&) {
        return "out of memory";
    }
    return nullptr;
}

}  // namespace

#include "interface.h"
