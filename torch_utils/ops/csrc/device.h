// What the GPU kernels share. Their arithmetic is marked HD, so that it compiles for the host too.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define HD __host__ __device__ inline

// Calls f with a value of the tensor's type and one of the type to compute in.
template <class F>
int with_type(int type, F f) {
    switch (type) {
        case 0: f(float{}, float{}); break;
        case 1: f(double{}, double{}); break;
        case 2: f(__half{}, float{}); break;
        case 3: f(__nv_bfloat16{}, float{}); break;
        default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

constexpr int kThreads = 256;

inline int blocks_for(int64_t count) {
    int64_t blocks = (count + kThreads - 1) / kThreads;
    return blocks < 65536 ? blocks : 65536;  // the kernels step over what is left
}
#else
#define HD inline
#endif
