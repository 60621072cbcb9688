// Runs the GPU kernels' arithmetic on the host: loops take the place of threads.
#include <vector>

#include "bias_act.h"
#include "triplane_point.h"
#include "upfirdn2d.h"

extern "C" void host_bend(const double* x, double* y, int64_t count, double slope, double gain,
                          double clamp) {
    for (int64_t i = 0; i < count; i++) y[i] = bend(x[i], Bend<double>{slope, gain, clamp});
}

extern "C" void host_bend_derivative(const double* gradient, const double* y, double* result,
                                     int64_t count, double slope, double gain, double clamp) {
    for (int64_t i = 0; i < count; i++)
        result[i] = bend_derivative(gradient[i], y[i], Bend<double>{slope, gain, clamp});
}

extern "C" void host_upfirdn2d(const Resample* r, const double* x, const double* kernel, double* y) {
    const int64_t count = r->batch * r->channels * r->out_height * r->out_width;
    for (int64_t i = 0; i < count; i++)
        resample_element(*r, x, kernel, y, i, r->y_stride[1] == 1);
}

extern "C" void host_triplane(const Shape* s, const float* packed, const float* planes,
                              const float* points, float* sigma, float* color,
                              const float* d_sigma, const float* d_color, float* d_planes,
                              float* d_points, float* d_weights) {
    constexpr int C = 16, F = 32;
    const Weights<C, F> weights{packed, s->hidden};
    const int64_t total = s->batch * s->count, trace_size = Trace<C, F>::size(s->hidden);
    std::vector<float> traces(total * trace_size);
    for (int64_t i = 0; i < total; i++) {
        const int64_t base = i / s->count * s->batch_stride;
        const float *texels = planes + base, *point = points + 3 * i;
        forward_point(*s, weights, texels, point, sigma + i, color + i * F);
        float d_features[C];
        backward_point(*s, weights, texels, point, d_sigma[i], d_color + i * F, color + i * F,
                       Trace<C, F>(&traces[i * trace_size], s->hidden), d_features);
        point_gradient<C>(*s, texels, point, d_features, d_points + 3 * i);
        visit_taps(*s, point, [&](Tap tap, const int64_t*) {
            for (int c = 0; c < C; c++)
                d_planes[base + tap.offset + c] += tap.weight * d_features[c];
        });
    }
    for (int64_t w = 0; w < Weights<C, F>::size(s->hidden); w++)
        d_weights[w] = weight_gradient<C, F>(w, s->hidden, traces.data(), total);
}
