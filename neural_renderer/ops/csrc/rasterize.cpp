// The rasterizer on CPU: triangles are sorted into tiles of the image, threads share the tiles.
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
constexpr int64_t kBlock = 256;

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
            T color[3] = {background[0], background[1], background[2]};
            if (index[i] >= 0) {
                const T* w = weight + b * 3 * pixels + pixel;
                const T barycentric[3] = {w[0], w[pixels], w[2 * pixels]};
                const Texels<T> at = texels_at(barycentric, cube);
                const T* face = textures + (b * count + index[i]) * texels * 3;
                color[0] = color[1] = color[2] = 0;
                for (int corner = 0; corner < 8; ++corner)
                    for (int c = 0; c < 3; ++c)
                        color[c] += at.share[corner] * face[3 * at.offset[corner] + c];
            }
            for (int c = 0; c < 3; ++c) rgb[(b * 3 + c) * pixels + pixel] = color[c];
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

// One image with C channels, laid out so that the pixels of a line lie side by side.
template <class T, int C>
struct Lines {
    const int32_t* index;
    const T *depth, *grad, *loss;  // grad: C planes; loss: grad . image
    int64_t pixels;
};

// The sum over pixels [begin, end) of a line of what the loss would fall by if they took on
// `color`, per distance from `at`; `counts` says which pixels take part (see reference.py).
template <class T, int C, class Counts>
inline __attribute__((always_inline)) T swept(const Lines<T, C>& line, const T* color, double at,
                                              int begin, int end, double least,
                                              const Counts& counts) {
    const T edge = T(at), shortest = T(least);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int n = begin; n < end; ++n) {
        T change = -line.loss[n];
        for (int c = 0; c < C; ++c) change += color[c] * line.grad[c * line.pixels + n];
        const T gap = std::abs(T(n) - edge);
        const T slope = change / (gap > shortest ? gap : shortest);
        sum += (change < 0) & counts(n) ? slope : T(0);
    }
    return sum;
}

// `image` is upright whatever the axis.
template <class T, int C>
NR_VERSIONS void sweep_face(const Lines<T, C>& lines, const T* image, const T* face, int32_t f,
                            const View& view, Axis axis, double eps, T* grad_face) {
    const int size = view.size;
    const int64_t line_stride = axis == kRows ? size : 1, pixel_stride = axis == kRows ? 1 : size;
    double along[3], across[3];
    to_lines(face, size, axis, along, across);
    int low = 0, high = size;  // where along a line the face can lie
    if (!view.perspective || (face[2] > 0 && face[5] > 0 && face[8] > 0))
        line_range(std::min({along[0], along[1], along[2]}) - 1,
                   std::max({along[0], along[1], along[2]}) + 1, size, &low, &high);
    const double scale = line_scale(size, axis), least = eps * size / 2;
    for (int k = 0; k < 3; ++k) {
        const Edge edge = make_edge(face, view, axis, along, across, k);
        for (int l = edge.first; l < edge.end; ++l) {
            const int64_t start = int64_t(l) * size;
            Crossing c;
            if (!cross_line(edge, l, size, &c)) continue;
            if (lines.index[start + c.inside] != f) continue;  // the edge is hidden here
            const Lines<T, C> line = {lines.index + start, lines.depth + start, lines.grad + start,
                                      lines.loss + start, lines.pixels};
            T inside[C], outside[C];
            for (int i = 0; i < C; ++i) {
                const T* plane = image + i * lines.pixels + l * line_stride;
                inside[i] = plane[c.inside * pixel_stride];
                outside[i] = plane[c.outside * pixel_stride];
            }
            const T behind = T(c.depth * (1 - kTie));
            const auto not_hidden = [&](int n) { return line.depth[n] >= behind; };
            const auto shown = [&](int n) { return line.index[n] == f; };
            double slope;  // of the loss as the edge moves along the line
            if (edge.inward > 0)
                slope = swept(line, outside, c.at, c.inside, high, least, shown) -
                        swept(line, inside, c.at, 0, c.inside, least, not_hidden);
            else
                slope = swept(line, inside, c.at, c.outside, size, least, not_hidden) -
                        swept(line, outside, c.at, low, c.outside, least, shown);
            grad_face[3 * k + axis] += T(scale * (1 - c.share) * slope);
            grad_face[3 * ((k + 1) % 3) + axis] += T(scale * c.share * slope);
        }
    }
}

template <class V>
void transpose(const V* from, V* to, int size, int first, int end) {
    for (int left = 0; left < size; left += kTile)
        for (int row = first; row < end; ++row)
            for (int column = left; column < std::min(left + kTile, size); ++column)
                to[int64_t(column) * size + row] = from[int64_t(row) * size + column];
}

template <class T, int C>
void sweep(const T* faces, const int32_t* index, const T* depth, const T* image, const T* grad,
           int64_t batch, int64_t count, const View& view, double eps, T* grad_faces,
           int threads) {
    const int size = view.size;
    const int64_t pixels = int64_t(size) * size;
    // Of one image at a time: the loss, and all planes transposed.
    const std::unique_ptr<T[]> planes(new T[(C + 3) * pixels]);
    const std::unique_ptr<int32_t[]> index_across(new int32_t[pixels]);
    T *loss = planes.get(), *loss_across = loss + pixels, *depth_across = loss + 2 * pixels;
    T* grad_across = loss + 3 * pixels;
    std::vector<uint8_t> visible(count);
    for (int64_t b = 0; b < batch; ++b) {
        const T *own_image = image + b * C * pixels, *own_grad = grad + b * C * pixels;
        const T* own_depth = depth + b * pixels;
        const int32_t* own_index = index + b * pixels;
        parallel_for((size + kTile - 1) / kTile, threads, [&](int64_t block) {
            const int first = int(block) * kTile, end = std::min(first + kTile, size);
            for (int64_t i = int64_t(first) * size; i < int64_t(end) * size; ++i) {
                loss[i] = 0;
                for (int c = 0; c < C; ++c)
                    loss[i] += own_image[c * pixels + i] * own_grad[c * pixels + i];
            }
            transpose(loss, loss_across, size, first, end);
            transpose(own_depth, depth_across, size, first, end);
            transpose(own_index, index_across.get(), size, first, end);
            for (int c = 0; c < C; ++c)
                transpose(own_grad + c * pixels, grad_across + c * pixels, size, first, end);
        });
        std::fill(visible.begin(), visible.end(), uint8_t(0));
        for (int64_t i = 0; i < pixels; ++i)
            if (own_index[i] >= 0) visible[own_index[i]] = 1;
        const Lines<T, C> rows = {own_index, own_depth, own_grad, loss, pixels};
        const Lines<T, C> columns = {index_across.get(), depth_across, grad_across, loss_across,
                                     pixels};
        parallel_blocks(count, threads, [&](int64_t first, int64_t end) {
            for (int64_t f = first; f < end; ++f) {
                if (!visible[f]) continue;
                const T* face = faces + 9 * (b * count + f);
                T* grad_face = grad_faces + 9 * (b * count + f);
                sweep_face(rows, own_image, face, int32_t(f), view, kRows, eps, grad_face);
                sweep_face(columns, own_image, face, int32_t(f), view, kColumns, eps, grad_face);
            }
        });
    }
}

template <class T>
void sweep(const T* faces, const int32_t* index, const T* depth, const T* image, const T* grad,
           int64_t batch, int64_t count, int channels, const View& view, double eps,
           T* grad_faces, int threads) {
    const auto run = channels == 1 ? sweep<T, 1> : channels == 3 ? sweep<T, 3> : sweep<T, 4>;
    run(faces, index, depth, image, grad, batch, count, view, eps, grad_faces, threads);
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
