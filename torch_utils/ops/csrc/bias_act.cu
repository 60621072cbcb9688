// Bias and bend on the GPU: one pass over memory each way.
#include "bias_act.h"

template <class T, class A>
__global__ void forward_kernel(const T* x, const T* bias, T* y, int64_t count, int64_t step,
                               int64_t size, Bend<A> k) {
    const int64_t stride = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
        A b = bias ? A(bias[i / step % size]) : A(0);
        y[i] = T(bend(A(x[i]) + b, k));
    }
}

template <class T, class A>
__global__ void derivative_kernel(const T* gradient, const T* y, T* result, int64_t count,
                                  Bend<A> k) {
    const int64_t stride = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride)
        result[i] = T(bend_derivative(A(gradient[i]), A(y[i]), k));
}

// x, y: count elements, dense, in one order of memory; element i has bias i / step % size (or none).
extern "C" int bias_act_forward(int type, const void* x, const void* bias, void* y, int64_t count,
                                int64_t step, int64_t size, double slope, double gain, double clamp,
                                void* stream) {
    return with_type(type, [=](auto t, auto a) {
        using T = decltype(t);
        using A = decltype(a);
        forward_kernel<<<blocks_for(count), kThreads, 0, cudaStream_t(stream)>>>(
            (const T*)x, (const T*)bias, (T*)y, count, step, size,
            Bend<A>{A(slope), A(gain), A(clamp)});
    });
}

extern "C" int bias_act_derivative(int type, const void* gradient, const void* y, void* result,
                                   int64_t count, double slope, double gain, double clamp,
                                   void* stream) {
    return with_type(type, [=](auto t, auto a) {
        using T = decltype(t);
        using A = decltype(a);
        derivative_kernel<<<blocks_for(count), kThreads, 0, cudaStream_t(stream)>>>(
            (const T*)gradient, (const T*)y, (T*)result, count,
            Bend<A>{A(slope), A(gain), A(clamp)});
    });
}
