// One output pixel of upfirdn2d:
//
//   y[o] = sum over taps t of k[t] x[(o down + t - pad) / up], where that index is whole and inside
//
// in both directions. Only every up-th tap meets a pixel; the others would multiply zeros.
#pragma once

#include "device.h"

struct Resample {
    int64_t batch, channels, height, width, out_height, out_width;
    int64_t x_stride[4], y_stride[4];  // of batch, channel, row, column
    int64_t kernel_height, kernel_width, up_x, up_y, down_x, down_y, pad_x, pad_y;
};

HD int64_t first_tap(int64_t out, int64_t down, int64_t pad, int64_t up) {
    int64_t remainder = (pad - out * down) % up;
    return remainder < 0 ? remainder + up : remainder;
}

// x: the image of one channel; kernel: correlated with it, row-major.
template <class T, class A>
HD A resample_pixel(const Resample& r, const T* x, const A* kernel, int64_t oy, int64_t ox) {
    A total = 0;
    for (int64_t ty = first_tap(oy, r.down_y, r.pad_y, r.up_y); ty < r.kernel_height; ty += r.up_y) {
        int64_t iy = (oy * r.down_y + ty - r.pad_y) / r.up_y;
        if (iy < 0 || iy >= r.height) continue;
        for (int64_t tx = first_tap(ox, r.down_x, r.pad_x, r.up_x); tx < r.kernel_width;
             tx += r.up_x) {
            int64_t ix = (ox * r.down_x + tx - r.pad_x) / r.up_x;
            if (ix < 0 || ix >= r.width) continue;
            total += kernel[ty * r.kernel_width + tx] *
                     A(x[iy * r.x_stride[2] + ix * r.x_stride[3]]);
        }
    }
    return total;
}

// Output element number i, counted in the order of y's memory when channels_last says which that is.
template <class T, class A>
HD void resample_element(const Resample& r, const T* x, const A* kernel, T* y, int64_t i,
                         bool channels_last) {
    int64_t c, ox, oy;
    if (channels_last) c = i % r.channels, i /= r.channels;
    ox = i % r.out_width, i /= r.out_width;
    oy = i % r.out_height, i /= r.out_height;
    if (!channels_last) c = i % r.channels, i /= r.channels;
    A value = resample_pixel(r, x + i * r.x_stride[0] + c * r.x_stride[1], kernel, oy, ox);
    y[i * r.y_stride[0] + c * r.y_stride[1] + oy * r.y_stride[2] + ox * r.y_stride[3]] = T(value);
}
