// Volume rendering along rays on the CPU: points, importance samples, blending; torch_utils/ops/rays.py
// has the formulas. kLanes rays are taken at a time: arrays are [sample][lane], so that all
// recursions along rays run in vectors; what has another order for each ray (sorting, colors) is
// scalar. Every ray is computed alone: results do not depend on the number of threads.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "simd.h"

namespace {

constexpr float kLeast = 1e-10f;  // of the light that passes an interval, for the gradient's sake

// A pass of samples: depths and sigma [rays][count], color [rays][count][colors].
struct Pass {
    int64_t count;
    const float *depths, *sigma, *color;
    float *d_sigma, *d_color;
};

struct Rays {
    int64_t rays, colors;
    float density_scale;
    Pass passes[2];  // the second may be empty

    int64_t samples() const { return passes[0].count + passes[1].count; }
};

struct Aligned {
    std::vector<float> memory;
    float* data;
    explicit Aligned(int64_t vectors)
        : memory((vectors + 1) * kLanes),
          data(reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~63ull)) {}
    float& at(int64_t i, int64_t lane) { return data[i * kLanes + lane]; }
    Vec get(int64_t i) const { return load(data + i * kLanes); }
    void set(int64_t i, Vec v) { store(data + i * kLanes, v); }
};

// ---- Density to weights ---------------------------------------------------------------------------

struct Interval {
    Vec delta, slope, passing, opacity;  // slope: of density by sigma
};

Interval interval(Vec depth, Vec next_depth, Vec sigma, Vec next_sigma, float scale) {
    Interval v;
    v.delta = next_depth - depth;
    const Vec middle = (sigma + next_sigma) * 0.5f - 1.f;
    Vec density = softplus_and_slope(middle, v.slope);
    density = middle < -80.f ? Vec{} : density;
    const Vec thickness = scale * density * v.delta;
    v.passing = exp_minus_abs(thickness);
    const Vec series = thickness * (1.f - thickness * (0.5f - thickness * (1.f / 6)));
    v.opacity = thickness < 0.01f ? series : 1.f - v.passing;
    v.slope *= scale;
    return v;
}

// ---- One group of rays ------------------------------------------------------------------------------

class Group {
  public:
    explicit Group(const Rays& r)
        : r(r), count(r.samples()), depth(count), sigma(count), index(count), weight(count),
          own(count), delta(count), slope(count), passing(count), opacity(count), light(count),
          d_sigma(count) {}

    void load_rays(int64_t first) {
        for (int64_t lane = 0; lane < kLanes; lane++) {
            const int64_t ray = std::min(first + lane, r.rays - 1);
            int64_t k = 0;
            for (const Pass& pass : r.passes)
                for (int64_t i = ray * pass.count; i < (ray + 1) * pass.count; i++, k++) {
                    depth.at(k, lane) = pass.depths[i];
                    sigma.at(k, lane) = pass.sigma[i];
                }
        }
        for (int64_t k = 0; k < count; k++) index.set(k, splat(k));
        sort();
    }

    void find_weights() {
        Vec left = splat(1.f), before{};
        total = total_depth = Vec{};
        for (int64_t i = 0; i + 1 < count; i++) {
            const Interval v = interval(depth.get(i), depth.get(i + 1), sigma.get(i),
                                        sigma.get(i + 1), r.density_scale);
            const Vec share = v.opacity * left;
            weight.set(i, (before + share) * 0.5f);
            total += share;
            total_depth += share * middle(i);
            delta.set(i, v.delta), slope.set(i, v.slope), passing.set(i, v.passing);
            opacity.set(i, v.opacity), light.set(i, left);
            left *= v.passing + kLeast;
            before = share;
        }
        weight.set(count - 1, before * 0.5f);
        for (int64_t k = 0; k < count; k++)
            for (int64_t lane = 0; lane < kLanes; lane++)
                own.at(index.at(k, lane), lane) = weight.at(k, lane);
    }

    // kColors: their number, or 0 where it is not known to the compiler.
    template <int kColors>
    void blend(int64_t first, float* color, float* all_opacity, float* all_depth) {
        const int64_t colors = kColors ? kColors : r.colors;
        for (int64_t lane = 0; lane < std::min<int64_t>(kLanes, r.rays - first); lane++) {
            const int64_t ray = first + lane;
            float* sum = color + ray * colors;
            std::fill(sum, sum + colors, 0.f);
            int64_t k = 0;
            for (const Pass& pass : r.passes) {
                const float* c = pass.color + ray * pass.count * colors;
                for (int64_t i = 0; i < pass.count; i++, k++, c += colors)
                    for (int64_t f = 0; f < colors; f++) sum[f] += own.at(k, lane) * c[f];
            }
            all_opacity[ray] = total[lane];
            all_depth[ray] = total_depth[lane];
        }
    }

    template <int kColors>
    void differentiate(int64_t first, const float* d_color, const float* d_opacity,
                       const float* d_depth) {
        const int64_t colors = kColors ? kColors : r.colors;
        const int64_t lanes = std::min<int64_t>(kLanes, r.rays - first);
        Vec by_opacity{}, by_depth{};
        for (int64_t lane = 0; lane < lanes; lane++) {
            const int64_t ray = first + lane;
            by_opacity[lane] = d_opacity[ray], by_depth[lane] = d_depth[ray];
            const float* d_sum = d_color + ray * colors;
            int64_t k = 0;
            for (const Pass& pass : r.passes) {
                int64_t at = ray * pass.count * colors;
                for (int64_t i = 0; i < pass.count; i++, k++, at += colors) {
                    const float weight = own.at(k, lane);
                    float by_weight = 0;
                    for (int64_t f = 0; f < colors; f++) {
                        by_weight += d_sum[f] * pass.color[at + f];
                        pass.d_color[at + f] = weight * d_sum[f];
                    }
                    own.at(k, lane) = by_weight;
                }
            }
        }
        sigma_gradient(by_opacity, by_depth);
        for (int64_t lane = 0; lane < lanes; lane++) {
            int64_t k = 0;
            for (const Pass& pass : r.passes)
                for (int64_t i = 0; i < pass.count; i++, k++)
                    pass.d_sigma[(first + lane) * pass.count + i] = own.at(k, lane);
        }
    }

  private:
    const Rays& r;
    int64_t count;
    // Along the ray; index: the place among all passes' samples. `own` is in that order.
    Aligned depth, sigma, index, weight, own, delta, slope, passing, opacity, light, d_sigma;
    Vec total, total_depth;

    Vec middle(int64_t i) const { return (depth.get(i) + depth.get(i + 1)) * 0.5f; }

    // Batcher's network of comparators (Knuth, The Art of Computer Programming 3, 5.2.2 M).
    void sort() {
        for (int64_t p = 1; p < count; p *= 2)
            for (int64_t k = p; k >= 1; k /= 2)
                for (int64_t j = k % p; j + k < count; j += 2 * k)
                    for (int64_t i = j; i < std::min(j + k, count - k); i++)
                        if (i / (2 * p) == (i + k) / (2 * p)) order(i, i + k);
    }

    void order(int64_t i, int64_t j) {
        const auto wrong = depth.get(j) < depth.get(i);
        for (Aligned* part : {&depth, &sigma, &index}) {
            const Vec a = part->get(i), b = part->get(j);
            part->set(i, wrong ? b : a);
            part->set(j, wrong ? a : b);
        }
    }

    // Backward along the recursion light' = light * (passing + kLeast); gradients of weights, and
    // then of sigma, in `own`.
    void sigma_gradient(Vec by_opacity, Vec by_depth) {
        for (int64_t k = 0; k < count; k++)
            for (int64_t lane = 0; lane < kLanes; lane++)
                weight.at(k, lane) = own.at(index.at(k, lane), lane);
        Vec by_light{};
        d_sigma.set(count - 1, Vec{});
        for (int64_t i = count - 2; i >= 0; i--) {
            const Vec by_share = (weight.get(i) + weight.get(i + 1)) * 0.5f + by_opacity +
                                 by_depth * middle(i);
            const Vec by_passing = light.get(i) * (by_light - by_share);
            by_light = by_share * opacity.get(i) + by_light * (passing.get(i) + kLeast);
            const Vec half = -0.5f * passing.get(i) * by_passing * delta.get(i) * slope.get(i);
            d_sigma.set(i + 1, d_sigma.get(i + 1) + half);
            d_sigma.set(i, half);
        }
        for (int64_t k = 0; k < count; k++)
            for (int64_t lane = 0; lane < kLanes; lane++)
                own.at(index.at(k, lane), lane) = d_sigma.at(k, lane);
    }
};

// ---- Importance samples -----------------------------------------------------------------------------

struct Distribution {
    int64_t count;  // of its edges
    Aligned cdf, edges;

    explicit Distribution(int64_t samples) : count(samples - 2), cdf(samples), edges(samples) {}

    // weight [samples - 1], overwritten; see `importance_depths` in rays.py.
    void fit(Aligned& weight, const Aligned& depth) {
        const int64_t last = count;  // the last weight's index
        Vec sum{};
        Vec at = larger(weight.get(0), weight.get(1));
        cdf.set(0, sum);
        for (int64_t i = 1; i < last; i++) {
            const Vec next = larger(weight.get(i), weight.get(i + 1));
            sum += (at + next) * 0.5f + 0.01f + 1e-5f;
            cdf.set(i, sum);
            at = next;
        }
        for (int64_t i = 0; i < count; i++) {
            cdf.set(i, cdf.get(i) / sum);
            edges.set(i, (depth.get(i) + depth.get(i + 1)) * 0.5f);
        }
    }

    Vec invert(Vec u) const {
        Vec low = cdf.get(0), high = low, from = edges.get(0), to = from;
        for (int64_t i = 0; i < count; i++) {
            const int64_t next = std::min(i + 1, count - 1);
            const auto passed = cdf.get(i) <= u;
            low = passed ? cdf.get(i) : low, high = passed ? cdf.get(next) : high;
            from = passed ? edges.get(i) : from, to = passed ? edges.get(next) : to;
        }
        const Vec span = high - low;
        return from + (u - low) / (span < 1e-5f ? splat(1.f) : span) * (to - from);
    }

    static Vec larger(Vec a, Vec b) { return a > b ? a : b; }
};

}  // namespace

// depths, sigma [rays][samples], ascending depths; u and found [rays][wanted].
extern "C" void rays_importance(const float* depths, const float* sigma, const float* u,
                                float* found, int64_t rays, int64_t samples, int64_t wanted,
                                float density_scale, int threads) {
    const Rays r{rays, 0, density_scale, {{samples, depths, sigma}, {0}}};
#pragma omp parallel num_threads(threads)
    {
        Aligned depth(samples), density(samples), weight(samples);
        Distribution distribution(samples);
#pragma omp for
        for (int64_t first = 0; first < rays; first += kLanes) {
            const int64_t lanes = std::min<int64_t>(kLanes, rays - first);
            for (int64_t lane = 0; lane < kLanes; lane++)
                for (int64_t i = 0, ray = std::min(first + lane, rays - 1); i < samples; i++) {
                    depth.at(i, lane) = depths[ray * samples + i];
                    density.at(i, lane) = sigma[ray * samples + i];
                }
            Vec light = splat(1.f);
            for (int64_t i = 0; i + 1 < samples; i++) {
                const Interval v = interval(depth.get(i), depth.get(i + 1), density.get(i),
                                            density.get(i + 1), density_scale);
                weight.set(i, v.opacity * light);
                light *= v.passing + kLeast;
            }
            distribution.fit(weight, depth);
            for (int64_t k = 0; k < wanted; k++) {
                Vec own{};
                for (int64_t lane = 0; lane < lanes; lane++) own[lane] = u[(first + lane) * wanted + k];
                own = distribution.invert(own);
                for (int64_t lane = 0; lane < lanes; lane++)
                    found[(first + lane) * wanted + k] = own[lane];
            }
        }
    }
}

// color [rays][colors]; opacity and depth, the sum of weighted depths, [rays].
extern "C" void rays_blend(const Rays* rays, float* color, float* opacity, float* depth,
                           int threads) {
#pragma omp parallel num_threads(threads)
    {
        Group group(*rays);
#pragma omp for
        for (int64_t first = 0; first < rays->rays; first += kLanes) {
            group.load_rays(first);
            group.find_weights();
            if (rays->colors == 3) group.blend<3>(first, color, opacity, depth);
            else group.blend<0>(first, color, opacity, depth);
        }
    }
}

// Fills the gradients of the passes' sigma and color.
extern "C" void rays_blend_backward(const Rays* rays, const float* d_color, const float* d_opacity,
                                    const float* d_depth, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Group group(*rays);
#pragma omp for
        for (int64_t first = 0; first < rays->rays; first += kLanes) {
            group.load_rays(first);
            group.find_weights();
            if (rays->colors == 3) group.differentiate<3>(first, d_color, d_opacity, d_depth);
            else group.differentiate<0>(first, d_color, d_opacity, d_depth);
        }
    }
}

// origins, directions [rays][3]; depths [rays][samples]; points [rays][samples][3].
extern "C" void rays_points(const float* origins, const float* directions, const float* depths,
                            float* points, int64_t rays, int64_t samples, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t ray = 0; ray < rays; ray++)
        for (int64_t i = 0; i < samples; i++)
            for (int64_t axis = 0; axis < 3; axis++)
                points[(ray * samples + i) * 3 + axis] =
                    origins[ray * 3 + axis] +
                    depths[ray * samples + i] * directions[ray * 3 + axis];
}

extern "C" void rays_points_backward(const float* depths, const float* d_points, float* d_origins,
                                     float* d_directions, int64_t rays, int64_t samples,
                                     int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t ray = 0; ray < rays; ray++)
        for (int64_t axis = 0; axis < 3; axis++) {
            float by_origin = 0, by_direction = 0;
            for (int64_t i = 0; i < samples; i++) {
                const float d = d_points[(ray * samples + i) * 3 + axis];
                by_origin += d;
                by_direction += depths[ray * samples + i] * d;
            }
            d_origins[ray * 3 + axis] = by_origin;
            d_directions[ray * 3 + axis] = by_direction;
        }
}
