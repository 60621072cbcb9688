// The fused tri-plane lookup and decoder for one point, as a GPU thread computes it. See
// triplane_render.cpp for the formulae.
#pragma once

#include "device.h"

struct Shape {  // as in triplane_render.cpp
    int64_t batch, count, channels, height, width, hidden, colors;
    int64_t batch_stride, plane_stride, row_stride, texel_stride;
    int64_t axes[3][2];
    float scale;
};

// Decoder weights in one array: w1 [hidden][C], b1 [hidden], then W2^T [hidden][F + 1] and
// b2 [F + 1], sigma first. Their gradients lie in the same order.
template <int C, int F>
struct Weights {
    const float* data;
    int64_t hidden;

    HD static int64_t size(int64_t hidden) { return hidden * (C + 1 + F + 1) + F + 1; }
    HD const float* w1(int64_t h) const { return data + h * C; }
    HD float b1(int64_t h) const { return data[hidden * C + h]; }
    HD const float* w2(int64_t h) const { return data + hidden * (C + 1) + h * (F + 1); }
    HD const float* b2() const { return data + hidden * (C + F + 2); }
};

struct Tap {
    int64_t offset;  // from the batch element's first texel
    float weight, along_x, along_y;
};

// Calls f(tap, the two world axes of its plane) for the texels that hold a part of the point.
template <class Visit>
HD void visit_taps(const Shape& s, const float* point, Visit f) {
    for (int plane = 0; plane < 3; plane++) {
        const int64_t *axes = s.axes[plane];
        const float dx = s.scale * s.width / 2, dy = s.scale * s.height / 2;
        const float x = point[axes[0]] * dx + (s.width - 1) * 0.5f;
        const float y = point[axes[1]] * dy + (s.height - 1) * 0.5f;
        if (!(x > -1 && x < s.width && y > -1 && y < s.height)) continue;  // NaN sees nothing
        const int x0 = int(floorf(x)), y0 = int(floorf(y));
        const float fx = x - x0, fy = y - y0;
        for (int k = 0; k < 4; k++) {
            const int right = k & 1, bottom = k >> 1, column = x0 + right, row = y0 + bottom;
            if (column < 0 || column >= s.width || row < 0 || row >= s.height) continue;
            const float wx = right ? fx : 1 - fx, wy = (bottom ? fy : 1 - fy) * (1.f / 3);
            f(Tap{plane * s.plane_stride + row * s.row_stride + column * s.texel_stride, wx * wy,
                  (right ? dx : -dx) * wy, (bottom ? dy : -dy) * wx * (1.f / 3)},
              axes);
        }
    }
}

HD float softplus_of(float x) { return (x > 0 ? x : 0) + log1pf(expf(-fabsf(x))); }

HD float sigmoid_of(float x) { return 1 / (1 + expf(-x)); }

template <int C>
HD void gather_point(const Shape& s, const float* planes, const float* point, float* features) {
    for (int c = 0; c < C; c++) features[c] = 0;
    visit_taps(s, point, [&](Tap tap, const int64_t*) {
        for (int c = 0; c < C; c++) features[c] += tap.weight * planes[tap.offset + c];
    });
}

template <int C, int F>
HD float hidden_unit(Weights<C, F> weights, int64_t h, const float* features) {
    float z = weights.b1(h);
    for (int c = 0; c < C; c++) z += weights.w1(h)[c] * features[c];
    return z;
}

template <int C, int F>
HD void forward_point(const Shape& s, Weights<C, F> weights, const float* planes,
                      const float* point, float* sigma, float* color) {
    float features[C], out[F + 1];
    gather_point<C>(s, planes, point, features);
    for (int o = 0; o <= F; o++) out[o] = weights.b2()[o];
    for (int64_t h = 0; h < s.hidden; h++) {
        const float activation = softplus_of(hidden_unit(weights, h, features));
        for (int o = 0; o <= F; o++) out[o] += weights.w2(h)[o] * activation;
    }
    *sigma = out[0];
    for (int o = 0; o < F; o++) color[o] = sigmoid_of(out[o + 1]) * 1.002f - 0.001f;
}

// What the weight gradients need of one point: f and dy, softplus(z) and dz. Lies in shared memory.
template <int C, int F>
struct Trace {
    float *features, *d_out, *activation, *d_hidden;

    HD static int64_t size(int64_t hidden) { return C + F + 1 + 2 * hidden; }
    HD Trace(float* memory, int64_t hidden)
        : features(memory), d_out(memory + C), activation(d_out + F + 1),
          d_hidden(activation + hidden) {}
};

// Leaves the point's trace; returns its df.
template <int C, int F>
HD void backward_point(const Shape& s, Weights<C, F> weights, const float* planes,
                       const float* point, float d_sigma, const float* d_color,
                       const float* color, Trace<C, F> trace, float* d_features) {
    float features[C], d_out[F + 1];
    gather_point<C>(s, planes, point, features);
    d_out[0] = d_sigma;
    for (int o = 0; o < F; o++) {
        const float sigmoid = (color[o] + 0.001f) * (1 / 1.002f);
        d_out[o + 1] = d_color[o] * 1.002f * sigmoid * (1 - sigmoid);
    }
    for (int c = 0; c < C; c++) trace.features[c] = features[c], d_features[c] = 0;
    for (int o = 0; o <= F; o++) trace.d_out[o] = d_out[o];
    for (int64_t h = 0; h < s.hidden; h++) {
        const float z = hidden_unit(weights, h, features);
        float d_hidden = 0;
        for (int o = 0; o <= F; o++) d_hidden += d_out[o] * weights.w2(h)[o];
        d_hidden *= sigmoid_of(z);
        for (int c = 0; c < C; c++) d_features[c] += d_hidden * weights.w1(h)[c];
        trace.activation[h] = softplus_of(z);
        trace.d_hidden[h] = d_hidden;
    }
}

template <int C>
HD void point_gradient(const Shape& s, const float* planes, const float* point,
                       const float* d_features, float* d_point) {
    float total[3] = {0, 0, 0};
    visit_taps(s, point, [&](Tap tap, const int64_t* axes) {
        float dot = 0;
        for (int c = 0; c < C; c++) dot += d_features[c] * planes[tap.offset + c];
        for (int axis = 0; axis < 3; axis++)  // no indexing, so that `total` stays in registers
            total[axis] += dot * ((axes[0] == axis ? tap.along_x : 0) +
                                  (axes[1] == axis ? tap.along_y : 0));
    });
    for (int axis = 0; axis < 3; axis++) d_point[axis] = total[axis];
}

// Gradient of weight number i, in the order of Weights, summed over the traces of `points` points.
template <int C, int F>
HD float weight_gradient(int64_t i, int64_t hidden, float* traces, int64_t points) {
    const int64_t size = Trace<C, F>::size(hidden);
    float total = 0;
    for (int64_t p = 0; p < points; p++) {
        const Trace<C, F> t(traces + p * size, hidden);
        if (i < hidden * C) total += t.d_hidden[i / C] * t.features[i % C];
        else if (i < hidden * (C + 1)) total += t.d_hidden[i - hidden * C];
        else if (i < hidden * (C + F + 2)) {
            const int64_t j = i - hidden * (C + 1);
            total += t.activation[j / (F + 1)] * t.d_out[j % (F + 1)];
        } else total += t.d_out[i - hidden * (C + F + 2)];
    }
    return total;
}
