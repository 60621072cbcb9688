// The fused tri-plane lookup and decoder on the GPU: a thread per point, the decoder's weights in
// shared memory. The backward pass leaves the traces of a block's points in shared memory, from
// where the block's threads sum the weight gradients; a row of partial sums per block goes out.
#include "triplane_point.h"

constexpr int kPoints = 64;  // threads, and points, of a block

__device__ void load_weights(const float* from, float* to, int64_t count) {
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
    __syncthreads();
}

template <int C, int F>
__global__ void forward_kernel(Shape s, const float* packed, const float* planes,
                               const float* points, float* sigma, float* color) {
    extern __shared__ float shared[];
    load_weights(packed, shared, Weights<C, F>::size(s.hidden));
    const Weights<C, F> weights{shared, s.hidden};
    const int64_t total = s.batch * s.count, stride = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += stride)
        forward_point(s, weights, planes + i / s.count * s.batch_stride, points + 3 * i, sigma + i,
                      color + i * F);
}

template <int C, int F>
__global__ void backward_kernel(Shape s, const float* packed, const float* planes,
                                const float* points, const float* color, const float* d_sigma,
                                const float* d_color, float* d_planes, float* d_points,
                                float* d_weights) {
    extern __shared__ float shared[];
    const int64_t size = Weights<C, F>::size(s.hidden);
    load_weights(packed, shared, size);
    const Weights<C, F> weights{shared, s.hidden};
    float* traces = shared + size;
    const int64_t total = s.batch * s.count, stride = int64_t(gridDim.x) * kPoints;
    for (int64_t first = int64_t(blockIdx.x) * kPoints; first < total; first += stride) {
        const int64_t i = first + threadIdx.x, b = i / s.count;
        if (i < total) {
            const Trace<C, F> trace(traces + threadIdx.x * Trace<C, F>::size(s.hidden), s.hidden);
            const float* texels = planes + b * s.batch_stride;
            float d_features[C];
            backward_point(s, weights, texels, points + 3 * i, d_sigma[i], d_color + i * F,
                           color + i * F, trace, d_features);
            if (d_points)
                point_gradient<C>(s, texels, points + 3 * i, d_features, d_points + 3 * i);
            if (d_planes)
                visit_taps(s, points + 3 * i, [&](Tap tap, const int64_t*) {
                    float* texel = d_planes + b * s.batch_stride + tap.offset;
                    for (int c = 0; c < C; c++) atomicAdd(texel + c, tap.weight * d_features[c]);
                });
        }
        if (!d_weights) continue;
        __syncthreads();
        const int64_t count = total - first < kPoints ? total - first : kPoints;
        for (int64_t w = threadIdx.x; w < size; w += blockDim.x)
            d_weights[blockIdx.x * size + w] +=
                weight_gradient<C, F>(w, s.hidden, traces, count);
        __syncthreads();
    }
}

template <int C, int F>
int launch(const Shape& s, bool backward, const float* packed, const float* planes,
           const float* points, float* sigma, float* color, const float* d_sigma,
           const float* d_color, float* d_planes, float* d_points, float* d_weights, int blocks,
           void* stream) {
    const int64_t traces = backward ? kPoints * Trace<C, F>::size(s.hidden) : 0;
    const int bytes = (Weights<C, F>::size(s.hidden) + traces) * sizeof(float);
    const void* kernel = backward ? (const void*)backward_kernel<C, F>
                                  : (const void*)forward_kernel<C, F>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (int error = cudaGetLastError()) return error;  // and forget it
    if (backward)
        backward_kernel<C, F><<<blocks, kPoints, bytes, cudaStream_t(stream)>>>(
            s, packed, planes, points, color, d_sigma, d_color, d_planes, d_points, d_weights);
    else
        forward_kernel<C, F><<<blocks, kPoints, bytes, cudaStream_t(stream)>>>(s, packed, planes,
                                                                               points, sigma, color);
    return cudaGetLastError();
}

// packed: see Weights. Forward (d_sigma null): writes sigma, color. Backward: reads color; adds to
// d_planes and d_weights [blocks][packed size], writes d_points; each may be null.
extern "C" int triplane_render_cuda(const Shape* s, const float* packed, const float* planes,
                                    const float* points, float* sigma, float* color,
                                    const float* d_sigma, const float* d_color, float* d_planes,
                                    float* d_points, float* d_weights, int blocks, void* stream) {
    auto go = [&](auto f) {
        return f(*s, d_sigma != nullptr, packed, planes, points, sigma, color, d_sigma, d_color,
                 d_planes, d_points, d_weights, blocks, stream);
    };
    if (s->channels == 16 && s->colors == 16) return go(launch<16, 16>);
    if (s->channels == 16 && s->colors == 32) return go(launch<16, 32>);
    if (s->channels == 32 && s->colors == 16) return go(launch<32, 16>);
    if (s->channels == 32 && s->colors == 32) return go(launch<32, 32>);
    return cudaErrorInvalidValue;
}
