// Bias and bend on the CPU: one pass over memory each way; float32 rounds as stock torch does.
#include <algorithm>
#include <vector>

#include "simd.h"

namespace {

constexpr int64_t kStretch = 4096;  // elements that a thread takes at a time, without a bias

struct Bend {
    float slope, gain, clamp;  // clamp may be infinite

    Vec value(Vec x, Vec scaled_bias) const {
        Vec y = x * gain + scaled_bias;
        y = y > 0.f ? y : y * slope;
        y = y < -clamp ? splat(-clamp) : y;
        return y > clamp ? splat(clamp) : y;
    }

    // gradient x derivative where the value is y.
    Vec derivative(Vec gradient, Vec y) const {
        gradient = (y > 0.f ? gradient : gradient * slope) * gain;
        return y <= -clamp ? Vec{} : y >= clamp ? Vec{} : gradient;
    }
};

template <class T>
void forward(const T* x, const T* bias, T* y, int64_t count, int64_t step, int64_t size, Bend k,
             int threads) {
    std::vector<float> scaled(bias ? size + kLanes : kLanes);
    for (int64_t i = 0; bias && i < size; i++) scaled[i] = to_float(bias[i]) * k.gain;
    const bool along = bias && step == 1;  // the bias changes within a stretch
    const int64_t stretch = !bias ? kStretch : along ? size : step;
#pragma omp parallel for num_threads(threads)
    for (int64_t start = 0; start < count; start += stretch) {
        const int64_t end = std::min(start + stretch, count);
        const Vec constant = splat(bias && !along ? scaled[start / step % size] : 0.f);
        for (int64_t i = start; i < end; i += kLanes) {
            const Vec own = along ? load(&scaled[i - start]) : constant;
            store(y + i, k.value(load(x + i, end - i), own), end - i);
        }
    }
}

template <class T>
void derivative(const T* gradient, const T* y, T* result, int64_t count, Bend k, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t start = 0; start < count; start += kStretch) {
        const int64_t end = std::min(start + kStretch, count);
        for (int64_t i = start; i < end; i += kLanes)
            store(result + i, k.derivative(load(gradient + i, end - i), load(y + i, end - i)),
                  end - i);
    }
}

}  // namespace

// x, y: count elements, dense, in one order of memory; element i has bias i / step % size (or none).
// bfloat: whether they, and the bias, are bfloat16; else they are float32.
extern "C" void bias_act_forward(int bfloat, const void* x, const void* bias, void* y, int64_t count,
                                 int64_t step, int64_t size, double slope, double gain,
                                 double clamp, int threads) {
    const Bend k{float(slope), float(gain), float(clamp)};
    auto run = [&](auto type) {
        using T = decltype(type);
        forward((const T*)x, (const T*)bias, (T*)y, count, step, size, k, threads);
    };
    bfloat ? run(Bfloat16{}) : run(0.f);
}

extern "C" void bias_act_derivative(int bfloat, const void* gradient, const void* y, void* result,
                                    int64_t count, double slope, double gain, double clamp,
                                    int threads) {
    const Bend k{float(slope), float(gain), float(clamp)};
    auto run = [&](auto type) {
        using T = decltype(type);
        derivative((const T*)gradient, (const T*)y, (T*)result, count, k, threads);
    };
    bfloat ? run(Bfloat16{}) : run(0.f);
}
