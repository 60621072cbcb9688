// upfirdn2d on the GPU: a thread per output element; neighbors share their input in the cache.
#include "upfirdn2d.h"

template <class T, class A>
__global__ void resample_kernel(Resample r, const T* x, const A* kernel, T* y, bool channels_last) {
    const int64_t count = r.batch * r.channels * r.out_height * r.out_width;
    const int64_t stride = int64_t(gridDim.x) * blockDim.x;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride)
        resample_element(r, x, kernel, y, i, channels_last);
}

// kernel: float, or double when x is double.
extern "C" int upfirdn2d(int type, const Resample* r, const void* x, const void* kernel, void* y,
                         void* stream) {
    const int64_t count = r->batch * r->channels * r->out_height * r->out_width;
    return with_type(type, [=](auto t, auto a) {
        using T = decltype(t);
        using A = decltype(a);
        resample_kernel<<<blocks_for(count), kThreads, 0, cudaStream_t(stream)>>>(
            *r, (const T*)x, (const A*)kernel, (T*)y, r->y_stride[1] == 1);
    });
}
