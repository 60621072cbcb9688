// Enough of CUDA to run kernels on CPU, one thread after the other: the tests compile
// rasterize.cu with this file included before it.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define __global__
#define __device__

struct Index {
    int64_t x;
};
inline Index blockIdx, threadIdx, blockDim;

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;

inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t) {
    *memory = std::malloc(bytes);
    return cudaSuccess;
}
inline void cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
    std::memset(memory, value, bytes);
}
inline void cudaFreeAsync(void* memory, cudaStream_t) { std::free(memory); }

template <class V>
void atomicMin(V* place, V value) {
    *place = std::min(*place, value);
}
template <class V>
void atomicAdd(V* place, V value) {
    *place += value;
}

#define NR_KERNEL(kernel, threads, stream, ...)                                      \
    blockDim.x = kThreads;                                                           \
    for (blockIdx.x = 0; blockIdx.x * kThreads < (threads); ++blockIdx.x)            \
        for (threadIdx.x = 0; threadIdx.x < kThreads; ++threadIdx.x) kernel(__VA_ARGS__)
