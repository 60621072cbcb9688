// Tri-plane lookup and decoder on the CPU, fused: from points to density and color.
//
//   point p --> 3 planes x 4 texels --mean--> f[C] --W1,b1--> z[H] --softplus--> h[H] --W2,b2--> y
//               (bilinear, zero outside)       y[0] = sigma, color = 1.002 sigmoid(y[1:]) - 0.001
//
// Points are taken in blocks of kBlock. Inside a block every array is [point][channel] and padded
// to whole vectors, so that a texel is a row of vectors and each product below is one small GEMM
// whose result's last axis lies along the vector:
//
//   forward    z = f W1^T          y  = h W2^T
//   backward   dh = dy W2          dW2 += dy^T h      dz = dh * softplus'(z)
//              df = dz W1          dW1^T += f^T dz
//
// The backward pass recomputes f, z and h per block; nothing per sample outlives a wave of some
// 65536 points. It leaves out points whose gradients float sums with the largest ones of the same
// batch element would not show: most empty and most hidden ones. Per wave, (1) blocks in parallel
// compute df; (2) df is added to the texels, each thread to the batch elements or texel rows that
// it owns. No texel has two writers, and each receives its points in order; weight gradients go to
// slots that belong to a stretch of the wave, not to a thread, and are summed in order at the end.
// So the result is the same, to the bit, for any number of threads.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <vector>

#include "simd.h"

struct Shape {
    int64_t batch, count;             // points per batch element
    int64_t channels, height, width;  // of a plane
    int64_t hidden, colors;
    int64_t batch_stride, plane_stride, row_stride, texel_stride;  // of planes; channel stride 1
    int64_t axes[3][2];                                            // per plane: width, height
    float scale;                                                   // world units -> [-1, 1]
};

namespace {

constexpr int64_t kBlock = 32;            // points whose arrays fit in the first-level cache
constexpr int64_t kGroup = 256;           // points that one thread takes at a time
constexpr int64_t kWave = 65536;          // points whose df is held at once, about
constexpr int64_t kSlots = 32;            // weight-gradient sums
constexpr float kNegligible = 1.f / (1 << 24);  // of the largest gradient: half its last bit
constexpr int kRows = kLanes == 16 ? 8 : 4;  // GEMM tile: kRows x 2 vectors fill the registers

struct Free {
    void operator()(float* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<float[], Free>;

Buffer zeros(int64_t count) {
    size_t bytes = (count * sizeof(float) + 63) / 64 * 64 + 64;
    float* memory = static_cast<float*>(std::aligned_alloc(64, bytes));
    std::memset(memory, 0, bytes);
    return Buffer(memory);
}

// ---- GEMM -------------------------------------------------------------------------------------

// A matrix operand that is read one scalar at a time, so any strides will do.
struct Scalars {
    const float* data;
    int64_t row, column;
};

// A row-major matrix whose rows are whole vectors; stride 0 repeats one row.
struct Rows {
    const float* data;
    int64_t stride;
};

template <int R, int V>
inline void gemm_tile(int64_t depth, Scalars a, Rows b, Rows initial, float* out, int64_t stride) {
    Vec sums[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++)
            sums[r][v] = load(initial.data + r * initial.stride + v * kLanes);
    for (int64_t k = 0; k < depth; k++) {
        Vec row[V];
        for (int v = 0; v < V; v++) row[v] = load(b.data + k * b.stride + v * kLanes);
        for (int r = 0; r < R; r++) {
            Vec scalar = splat(a.data[r * a.row + k * a.column]);
            for (int v = 0; v < V; v++) sums[r][v] += scalar * row[v];
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(out + r * stride + v * kLanes, sums[r][v]);
}

template <int V>
inline void gemm_columns(int64_t rows, int64_t depth, Scalars a, Rows b, Rows initial, float* out,
                         int64_t stride) {
    int64_t r = 0;
    auto from = [&](const Rows& m) { return Rows{m.data + r * m.stride, m.stride}; };
    auto scalars = [&] { return Scalars{a.data + r * a.row, a.row, a.column}; };
    for (; r + kRows <= rows; r += kRows)
        gemm_tile<kRows, V>(depth, scalars(), b, from(initial), out + r * stride, stride);
    for (; r < rows; r++)
        gemm_tile<1, V>(depth, scalars(), b, from(initial), out + r * stride, stride);
}

// out[rows][columns] = initial + a[rows][depth] b[depth][columns]; columns in whole vectors.
void gemm(int64_t rows, int64_t columns, int64_t depth, Scalars a, Rows b, Rows initial, float* out,
          int64_t stride) {
    int64_t j = 0;
    auto from = [&](const Rows& m) { return Rows{m.data + j, m.stride}; };
    for (; j + 2 * kLanes <= columns; j += 2 * kLanes)
        gemm_columns<2>(rows, depth, a, from(b), from(initial), out + j, stride);
    for (; j < columns; j += kLanes)
        gemm_columns<1>(rows, depth, a, from(b), from(initial), out + j, stride);
}

// ---- Decoder weights, rearranged ----------------------------------------------------------------

// Inside the kernel the rows of W2 are ordered colors first, sigma last, so that colors start
// on a vector boundary.
struct Decoder {
    int64_t channels, hidden, colors;  // padded to whole vectors
    Buffer w1, w1_t, b1, w2, w2_t, b2, none;

    Decoder(const Shape& s, const float* w1_in, const float* b1_in, const float* w2_in,
            const float* b2_in)
        : channels(pad(s.channels)), hidden(pad(s.hidden)), colors(pad(s.colors)),
          w1(zeros(s.hidden * channels)), w1_t(zeros(s.channels * hidden)), b1(zeros(hidden)),
          w2(zeros((s.colors + 1) * hidden)), w2_t(zeros(s.hidden * colors)),
          b2(zeros(colors + 1)), none(zeros(std::max(channels, hidden))) {
        for (int64_t h = 0; h < s.hidden; h++) {
            b1[h] = b1_in[h];
            for (int64_t c = 0; c < s.channels; c++)
                w1[h * channels + c] = w1_t[c * hidden + h] = w1_in[h * s.channels + c];
        }
        for (int64_t o = 0; o <= s.colors; o++) {
            int64_t from = o == s.colors ? 0 : o + 1;
            b2[o] = b2_in[from];
            for (int64_t h = 0; h < s.hidden; h++) {
                float weight = w2_in[from * s.hidden + h];
                w2[o * hidden + h] = weight;
                if (o < s.colors) w2_t[h * colors + o] = weight;
            }
        }
    }
};

// ---- Lookup -------------------------------------------------------------------------------------

// The 12 texels that each point of a block reads: planes x (top, bottom) x (left, right).
struct Taps {
    int32_t offset[12][kBlock];   // from the batch element's first texel; clamped into the plane
    float weight[12][kBlock];     // bilinear / 3; 0 outside the plane
    float along_x[12][kBlock];    // derivatives of the weight by the plane's two world coordinates
    float along_y[12][kBlock];
    int32_t row[6][kBlock];       // texel row of each pair, clamped
};

inline IntVec to_int(Vec x) { return __builtin_convertvector(x, IntVec); }
inline Vec to_float(IntVec i) { return __builtin_convertvector(i, Vec); }

inline IntVec clamp_index(IntVec i, int32_t size) {
    i = i < 0 ? IntVec{} : i;
    return i < size ? i : IntVec{} + (size - 1);
}

// floor, of coordinates within one texel of the plane; farther ones, and NaN, move to its margin.
inline IntVec floor_near_plane(Vec x, int32_t size) {
    x = x > -2.f ? x : splat(-2.f);
    x = x < size + 1.f ? x : splat(size + 1.f);
    IntVec i = to_int(x);
    return i + (x < to_float(i));  // a true comparison is -1
}

void find_taps(const Shape& s, const float* points, int64_t count, Taps& taps) {
    const int32_t width = s.width, height = s.height;
    const int32_t row_stride = s.row_stride, texel_stride = s.texel_stride;
    float world[3][kBlock] = {};
    for (int64_t p = 0; p < count; p++)
        for (int axis = 0; axis < 3; axis++) world[axis][p] = points[3 * p + axis];

    for (int plane = 0; plane < 3; plane++) {
        const int32_t base = plane * static_cast<int32_t>(s.plane_stride);
        const float dx = s.scale * width / 2, dy = s.scale * height / 2;  // texels per world unit
        for (int64_t p = 0; p < kBlock; p += kLanes) {
            Vec x = load(&world[s.axes[plane][0]][p]) * dx + (width - 1) * 0.5f;
            Vec y = load(&world[s.axes[plane][1]][p]) * dy + (height - 1) * 0.5f;
            IntVec x0 = floor_near_plane(x, width), y0 = floor_near_plane(y, height);
            Vec fx = x - to_float(x0), fy = y - to_float(y0);
            for (int bottom = 0; bottom < 2; bottom++) {
                IntVec yi = y0 + bottom, row = clamp_index(yi, height);
                Vec wy = (bottom ? fy : 1.f - fy) * (1.f / 3);
                store(&taps.row[2 * plane + bottom][p], row);
                for (int right = 0; right < 2; right++) {
                    IntVec xi = x0 + right, column = clamp_index(xi, width);
                    IntVec hit = (xi == column) & (yi == row);
                    Vec inside = hit ? splat(1.f) : Vec{};  // times, not choose: NaN must survive
                    Vec wx = right ? fx : 1.f - fx;
                    int k = 4 * plane + 2 * bottom + right;
                    store(&taps.offset[k][p], row * row_stride + column * texel_stride + base);
                    store(&taps.weight[k][p], wx * wy * inside);
                    store(&taps.along_x[k][p], (right ? dx : -dx) * wy * inside);
                    store(&taps.along_y[k][p], (bottom ? dy : -dy) * (1.f / 3) * wx * inside);
                }
            }
        }
    }
}

void gather(const Shape& s, const float* planes, const Taps& taps, int64_t count, float* features) {
    const int64_t stride = pad(s.channels);
    for (int64_t p = 0; p < count; p++)
        for (int64_t c = 0; c < s.channels; c += kLanes) {
            Vec total{};
            for (int k = 0; k < 12; k++) {
                const float* texel = planes + taps.offset[k][p] + c;
                total += taps.weight[k][p] * load(texel, s.channels - c);
            }
            store(features + p * stride + c, total);
        }
}

// d(loss)/d(points): df . sum over taps of texel * d(weight)/d(coordinate).
void point_gradient(const Shape& s, const float* planes, const Taps& taps, int64_t count,
                    const float* d_features, float* d_points) {
    const int64_t stride = pad(s.channels);
    for (int64_t p = 0; p < count; p++) {
        Vec total[3] = {};
        for (int64_t c = 0; c < s.channels; c += kLanes) {
            Vec df = load(d_features + p * stride + c);
            for (int plane = 0; plane < 3; plane++) {
                Vec x{}, y{};
                for (int k = 4 * plane; k < 4 * plane + 4; k++) {
                    const float* texel = planes + taps.offset[k][p] + c;
                    Vec value = load(texel, s.channels - c);
                    x += taps.along_x[k][p] * value;
                    y += taps.along_y[k][p] * value;
                }
                total[s.axes[plane][0]] += df * x;
                total[s.axes[plane][1]] += df * y;
            }
        }
        for (int axis = 0; axis < 3; axis++) d_points[3 * p + axis] = sum(total[axis]);
    }
}

// Add df to the texels in the rows r with r % owners == owner; owners is a power of two.
void scatter(const Shape& s, const Taps& taps, int64_t count, const float* d_features,
             int32_t owners, int32_t owner, float* d_planes) {
    const int64_t stride = pad(s.channels);
    for (int64_t p = 0; p < count; p++) {
        const int64_t ahead = std::min(p + 4, count - 1);
        for (int64_t c = 0; c < s.channels; c += kLanes) {
            const int64_t left = s.channels - c;
            const Vec df = load(d_features + p * stride + c);
            for (int pair = 0; pair < 6; pair++) {
                for (int k = 2 * pair; k < 2 * pair + 2; k++)
                    __builtin_prefetch(d_planes + taps.offset[k][ahead] + c, 1);
                if ((taps.row[pair][p] & (owners - 1)) != owner) continue;
                for (int k = 2 * pair; k < 2 * pair + 2; k++) {
                    float* texel = d_planes + taps.offset[k][p] + c;
                    store(texel, load(texel, left) + taps.weight[k][p] * df, left);
                }
            }
        }
    }
}

// ---- One block ----------------------------------------------------------------------------------

// Arrays of one block, [kBlock][padded size] each; a thread's own.
struct Block {
    Taps taps;
    Buffer features, hidden, slope, d_hidden, outputs;

    Block(const Decoder& d)
        : features(zeros(kBlock * d.channels)), hidden(zeros(kBlock * d.hidden)),
          slope(zeros(kBlock * d.hidden)), d_hidden(zeros(kBlock * d.hidden)),
          outputs(zeros(kBlock * (d.colors + kLanes))) {}
};

void look_up(const Shape& s, const Decoder& d, const float* planes, const float* points,
             int64_t count, Block& block) {
    find_taps(s, points, count, block.taps);
    gather(s, planes, block.taps, count, block.features.get());
    gemm(kBlock, d.hidden, s.channels, {block.features.get(), d.channels, 1},
         {d.w1_t.get(), d.hidden}, {d.b1.get(), 0}, block.hidden.get(), d.hidden);
}

void forward_block(const Shape& s, const Decoder& d, const float* planes, const float* points,
                   int64_t count, Block& block, float* sigma, float* color) {
    look_up(s, d, planes, points, count, block);
    float* hidden = block.hidden.get();
    for (int64_t i = 0; i < kBlock * d.hidden; i += kLanes)
        store(hidden + i, softplus(load(hidden + i)));
    gemm(kBlock, d.colors, s.hidden, {hidden, d.hidden, 1}, {d.w2_t.get(), d.colors},
         {d.b2.get(), 0}, block.outputs.get(), d.colors);
    const float* sigma_weight = d.w2.get() + s.colors * d.hidden;
    for (int64_t p = 0; p < count; p++) {
        Vec total{};
        for (int64_t h = 0; h < d.hidden; h += kLanes)
            total += load(hidden + p * d.hidden + h) * load(sigma_weight + h);
        sigma[p] = sum(total) + d.b2[s.colors];
        for (int64_t o = 0; o < s.colors; o += kLanes) {
            Vec y = load(block.outputs.get() + p * d.colors + o);
            store(color + p * s.colors + o, sigmoid(y) * 1.002f - 0.001f, s.colors - o);
        }
    }
}

// Sums of weight gradients: dW1^T [channels][hidden], db1 [hidden], dW2 [colors + 1][hidden],
// db2 [colors + 1], the hidden axis padded.
struct Slot {
    float *w1_t, *b1, *w2, *b2;

    static int64_t size(const Shape& s, const Decoder& d) {
        return (s.channels + 1 + s.colors + 1) * d.hidden + pad(s.colors + 1);
    }
    Slot(const Shape& s, const Decoder& d, float* memory)
        : w1_t(memory), b1(w1_t + s.channels * d.hidden), w2(b1 + d.hidden),
          b2(w2 + (s.colors + 1) * d.hidden) {}
};

struct OutputGradients {
    const float *sigma, *color;  // gradients [count], [count, colors]
    const float* color_value;    // the forward pass's colors
};

// Up to which absolute value gradients are negligible; 0 where one is infinite.
float negligible(const float* gradients, int64_t count) {
    Vec largest{};
    for (int64_t i = 0; i < count; i += kLanes) {
        const Vec x = load(gradients + i, count - i), size = x < 0.f ? -x : x;
        largest = size > largest ? size : largest;
    }
    float result = 0;
    for (int lane = 0; lane < kLanes; lane++) result = std::max(result, largest[lane]);
    return std::isfinite(result) ? result * kNegligible : 0;
}

// Points of one batch element, by number.
struct Selection {
    const int32_t* numbers;
    int64_t count;
};

// dy into block.outputs, from the colors themselves: sigmoid' = s (1 - s). Missing points give 0.
void output_gradient(const Shape& s, const Decoder& d, OutputGradients g, int64_t first,
                     Selection points, Block& block) {
    const int64_t stride = d.colors + kLanes;
    float* dy = block.outputs.get();
    std::memset(dy, 0, kBlock * stride * sizeof(float));
    for (int64_t p = 0; p < points.count; p++) {
        const int64_t point = first + points.numbers[p];
        for (int64_t o = 0; o < s.colors; o += kLanes) {
            int64_t left = s.colors - o, at = point * s.colors + o;
            Vec sigmoid = (load(g.color_value + at, left) + 0.001f) * (1 / 1.002f);
            Vec gradient = load(g.color + at, left) * 1.002f * sigmoid * (1.f - sigmoid);
            store(dy + p * stride + o, gradient);
        }
        dy[p * stride + s.colors] = g.sigma[point];
    }
}

void weight_gradient(const Shape& s, const Decoder& d, const Block& block, Slot slot) {
    const int64_t stride = d.colors + kLanes;
    const float *dy = block.outputs.get(), *dz = block.d_hidden.get();
    gemm(s.colors + 1, d.hidden, kBlock, {dy, 1, stride}, {block.hidden.get(), d.hidden},
         {slot.w2, d.hidden}, slot.w2, d.hidden);
    gemm(s.channels, d.hidden, kBlock, {block.features.get(), 1, d.channels}, {dz, d.hidden},
         {slot.w1_t, d.hidden}, slot.w1_t, d.hidden);
    for (int64_t p = 0; p < kBlock; p++) {
        for (int64_t o = 0; o <= s.colors; o++) slot.b2[o] += dy[p * stride + o];
        for (int64_t h = 0; h < d.hidden; h += kLanes)
            store(slot.b1 + h, load(slot.b1 + h) + load(dz + p * d.hidden + h));
    }
}

// From what look_up and output_gradient left; leaves dz in block.d_hidden.
void decoder_gradient(const Shape& s, const Decoder& d, Block& block) {
    gemm(kBlock, d.hidden, s.colors + 1, {block.outputs.get(), d.colors + kLanes, 1},
         {d.w2.get(), d.hidden}, {d.none.get(), 0}, block.d_hidden.get(), d.hidden);
    float *hidden = block.hidden.get(), *dz = block.d_hidden.get();
    for (int64_t i = 0; i < kBlock * d.hidden; i += kLanes) {
        Vec slope;
        store(hidden + i, softplus_and_slope(load(hidden + i), slope));
        store(dz + i, load(dz + i) * slope);
    }
}

// ---- Backward pass ------------------------------------------------------------------------------

// What counts of a batch element's gradients is larger, in absolute value; NaN counts too.
struct Limits {
    float sigma, color;
};

std::vector<Limits> find_limits(const Shape& s, OutputGradients g, int threads) {
    std::vector<Limits> limits(s.batch);
#pragma omp parallel for num_threads(threads)
    for (int64_t b = 0; b < s.batch; b++)
        limits[b] = {negligible(g.sigma + b * s.count, s.count),
                     negligible(g.color + b * s.count * s.colors, s.count * s.colors)};
    return limits;
}

struct Backward {
    const Shape& s;
    const Decoder& d;
    const float *planes, *points;
    OutputGradients outputs;
    float *d_planes, *d_points;  // either may be null
    std::vector<Limits> limits;  // of each batch element

    bool counts(int64_t b, int64_t at) const {
        for (int64_t o = 0; o < s.colors; o++)
            if (!(std::abs(outputs.color[at * s.colors + o]) <= limits[b].color)) return true;
        return !(std::abs(outputs.sigma[at]) <= limits[b].sigma);
    }

    // Numbers of the points of [start, end) of batch element b whose gradients count, and how many
    // they are. The others' d_points are 0.
    int64_t select(int64_t b, int64_t start, int64_t end, int32_t* numbers) const {
        int64_t selected = 0;
        for (int64_t p = start; p < end; p++) {
            const int64_t at = b * s.count + p;
            if (counts(b, at)) numbers[selected++] = p;
            else if (d_points) std::fill_n(d_points + 3 * at, 3, 0.f);
        }
        return selected;
    }

    // Calls f with each block of a selection in batch element b, its coordinates and its df.
    template <typename F>
    void visit_blocks(int64_t b, Selection selection, float* d_features, F f) const {
        float coordinates[3 * kBlock];
        for (int64_t i = 0; i < selection.count; i += kBlock, d_features += kBlock * d.channels) {
            const Selection part{selection.numbers + i, std::min(kBlock, selection.count - i)};
            for (int64_t p = 0; p < part.count; p++)
                std::copy_n(points + 3 * (b * s.count + part.numbers[p]), 3, coordinates + 3 * p);
            f(part, coordinates, d_features);
        }
    }

    // Weight gradients (unless the slot is null) added up, d_points written, df written to
    // d_features [selection.count, rounded up to a block].
    void differentiate(int64_t b, Selection selection, float* slot, float* d_features,
                       Block& block) const {
        const float* texels = planes + b * s.batch_stride;
        const int64_t first = b * s.count;
        visit_blocks(b, selection, d_features, [&](Selection part, float* coordinates, float* df) {
            float gradients[3 * kBlock];
            look_up(s, d, texels, coordinates, part.count, block);
            output_gradient(s, d, outputs, first, part, block);
            decoder_gradient(s, d, block);
            if (slot) weight_gradient(s, d, block, Slot(s, d, slot));
            if (!d_planes && !d_points) return;
            gemm(kBlock, d.channels, s.hidden, {block.d_hidden.get(), d.hidden, 1},
                 {d.w1.get(), d.channels}, {d.none.get(), 0}, df, d.channels);
            if (!d_points) return;
            point_gradient(s, texels, block.taps, part.count, df, gradients);
            for (int64_t i = 0; i < part.count; i++)
                std::copy_n(gradients + 3 * i, 3, d_points + 3 * (first + part.numbers[i]));
        });
    }

    void spread(int64_t b, Selection selection, float* d_features, int32_t owners, int32_t owner,
                Block& block) const {
        visit_blocks(b, selection, d_features, [&](Selection part, float* coordinates, float* df) {
            find_taps(s, coordinates, part.count, block.taps);
            scatter(s, block.taps, part.count, df, owners, owner, d_planes + b * s.batch_stride);
        });
    }
};

int32_t power_of_two_at_least(int64_t n) {
    int32_t power = 1;
    while (power < n) power *= 2;
    return power;
}

}  // namespace

// ---- Interface ----------------------------------------------------------------------------------

// to [count][columns][rows] from [count][rows][columns]: planes to texels and back. The inner loop
// follows the longer side, where the far strides of the other would fall on the same cache sets.
extern "C" void triplane_render_transpose(const float* from, float* to, int64_t count, int64_t rows,
                                          int64_t columns, int threads) {
    const bool wide = columns > rows;
    const int64_t length = wide ? columns : rows, breadth = wide ? rows : columns;
    const int64_t from_step = wide ? 1 : columns, from_jump = wide ? columns : 1;
    const int64_t to_step = wide ? rows : 1, to_jump = wide ? 1 : rows;
    const int64_t tile = 64, tiles = (length + tile - 1) / tile;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 16)
    for (int64_t i = 0; i < count * tiles; i++) {
        const float* source = from + i / tiles * rows * columns;
        float* target = to + i / tiles * rows * columns;
        const int64_t start = i % tiles * tile, end = std::min(start + tile, length);
        for (int64_t j = 0; j < breadth; j++)
            for (int64_t k = start; k < end; k++)
                target[k * to_step + j * to_jump] = source[k * from_step + j * from_jump];
    }
}

// planes: strided as the shape says; points [batch, count, 3]; weights row-major.
// sigma [batch, count], color [batch, count, colors] are overwritten.
extern "C" void triplane_render_forward(const Shape* shape, const float* planes,
                                        const float* points, const float* w1, const float* b1,
                                        const float* w2, const float* b2, float* sigma,
                                        float* color, int threads) {
    const Shape& s = *shape;
    const Decoder decoder(s, w1, b1, w2, b2);
    const int64_t blocks = (s.count + kBlock - 1) / kBlock;
#pragma omp parallel num_threads(threads)
    {
        Block block(decoder);
#pragma omp for schedule(dynamic, 8)
        for (int64_t i = 0; i < s.batch * blocks; i++) {
            int64_t b = i / blocks, start = i % blocks * kBlock, at = b * s.count + start;
            int64_t count = std::min(kBlock, s.count - start);
            forward_block(s, decoder, planes + b * s.batch_stride, points + 3 * at, count, block,
                          sigma + at, color + at * s.colors);
        }
    }
}

// Gradients of the above. color is its result. d_planes (strided as planes, zero on entry),
// d_points and the weights' gradients may each be null, the last four only together.
extern "C" void triplane_render_backward(const Shape* shape, const float* planes,
                                         const float* points, const float* w1, const float* b1,
                                         const float* w2, const float* b2, const float* color,
                                         const float* d_sigma, const float* d_color,
                                         float* d_planes, float* d_points, float* d_w1, float* d_b1,
                                         float* d_w2, float* d_b2, int threads) {
    const Shape& s = *shape;
    const Decoder d(s, w1, b1, w2, b2);
    const OutputGradients outputs{d_sigma, d_color, color};
    const Backward pass{s,        d,        planes, points, outputs,
                        d_planes, d_points, find_limits(s, outputs, threads)};
    const int64_t slot_size = d_w1 ? Slot::size(s, d) : 0;
    const Buffer slots = zeros(kSlots * slot_size);
    // A wave is the same stretch of points, in whole groups, of every batch element.
    const int64_t all_groups = (s.count + kGroup - 1) / kGroup;
    const int64_t groups = std::min(std::max<int64_t>(kWave / kGroup / s.batch, 1), all_groups);
    const int64_t stretch = groups * kGroup, wave_groups = s.batch * groups;
    const Buffer d_features = zeros(s.batch * stretch * d.channels);
    std::vector<int32_t> numbers(s.batch * stretch), selected(wave_groups);
    const int32_t owners = power_of_two_at_least((threads + s.batch - 1) / s.batch);

#pragma omp parallel num_threads(threads)
    {
        Block block(d);
        for (int64_t first = 0; first < s.count; first += stretch) {
#pragma omp for schedule(dynamic)
            for (int64_t slot = 0; slot < kSlots; slot++)
                for (int64_t i = slot * wave_groups / kSlots;
                     i < (slot + 1) * wave_groups / kSlots; i++) {
                    const int64_t b = i / groups, start = first + i % groups * kGroup;
                    int32_t* own = &numbers[i * kGroup];
                    selected[i] = pass.select(b, start, std::min(start + kGroup, s.count), own);
                    pass.differentiate(b, {own, selected[i]},
                                       d_w1 ? &slots[slot * slot_size] : nullptr,
                                       &d_features[i * kGroup * d.channels], block);
                }
            if (!d_planes) continue;
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < s.batch * owners; i++) {
                const int64_t b = i / owners;
                for (int64_t j = b * groups; j < (b + 1) * groups; j++)
                    pass.spread(b, {&numbers[j * kGroup], selected[j]},
                                &d_features[j * kGroup * d.channels], owners, i % owners, block);
            }
        }
    }
    if (!d_w1) return;

    for (int64_t i = slot_size; i < kSlots * slot_size; i++) slots[i % slot_size] += slots[i];
    const Slot total(s, d, slots.get());
    for (int64_t h = 0; h < s.hidden; h++) {
        d_b1[h] = total.b1[h];
        for (int64_t c = 0; c < s.channels; c++)
            d_w1[h * s.channels + c] = total.w1_t[c * d.hidden + h];
    }
    for (int64_t o = 0; o <= s.colors; o++) {
        int64_t to = o == s.colors ? 0 : o + 1;
        d_b2[to] = total.b2[o];
        for (int64_t h = 0; h < s.hidden; h++) d_w2[to * s.hidden + h] = total.w2[o * d.hidden + h];
    }
}
