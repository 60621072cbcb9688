// Enough of CUDA to run kernels on the host. `tests/cuda/on_host.py` rewrites what a C++ compiler
// cannot read (launches, shared memory) into calls of this file, and includes it first.
//
// The threads of a block are fibers, switched at __syncthreads; or, with CUDA_ON_HOST_THREADS,
// real threads of two blocks at a time, for sanitizers. Shared memory is poisoned at the start of
// a block. A launch that a GPU would refuse, and a barrier that not all threads of a block reach,
// are errors that cudaGetLastError returns. One dimension; no warp intrinsics.
#pragma once
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <ucontext.h>

#define __CUDACC__
#define __global__
#define __device__
#define __host__

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2,
                      cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8;

struct Index {
    unsigned x;
};
inline thread_local Index threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {

// What every GPU since Ampere allows a block.
constexpr int64_t kMaxThreads = 1024, kMaxBlocks = 0x7fffffff;
constexpr int64_t kShared = 48 * 1024, kSharedOnRequest = 99 * 1024;
constexpr int kPoison = 0xff;  // floats become NaN, integers -1

inline thread_local cudaError_t last_error = cudaSuccess;

class Block;
inline thread_local Block* current = nullptr;

// What the threads of one block share. `wait` is their barrier.
class Block {
public:
    explicit Block(size_t bytes) : bytes_(bytes) { clear(); }
    virtual ~Block() = default;
    virtual void wait() = 0;

    void clear() {
        statics_.clear();
        shared_.reset(static_cast<unsigned char*>(std::malloc(bytes_)));  // exact, for sanitizers
        if (bytes_) std::memset(shared_.get(), kPoison, bytes_);
    }

    void* dynamic_shared() { return shared_.get(); }

    void* static_shared(int line, size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        auto& memory = statics_[line];
        if (memory.empty()) memory.assign(bytes, kPoison);
        return memory.data();
    }

    bool diverged = false;  // a thread ended while others waited for it

protected:
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    size_t bytes_;
    std::unique_ptr<unsigned char, Free> shared_;
    std::map<int, std::vector<unsigned char>> statics_;
    std::mutex mutex_;
};

template <class T>
T* dynamic_shared() {
    return static_cast<T*>(current->dynamic_shared());
}

template <class T>
T& static_shared(int line) {
    return *static_cast<T*>(current->static_shared(line, sizeof(T)));
}

using Kernel = std::function<void()>;

#ifdef CUDA_ON_HOST_THREADS

// A barrier of which threads can take leave.
class ThreadBlock : public Block {
public:
    ThreadBlock(size_t bytes, int threads) : Block(bytes), threads_(threads) {}

    void wait() override {
        std::unique_lock<std::mutex> lock(barrier_);
        if (diverged) return;
        const int round = round_;
        waiting_++;
        settle();
        changed_.wait(lock, [&] { return round != round_; });
    }

    // At the end of the kernel: returns once all threads are there.
    void finish() {
        std::unique_lock<std::mutex> lock(barrier_);
        const int round = finish_round_;
        finished_++;
        settle();
        if (finished_ == threads_) {
            finished_ = 0;
            finish_round_++;
            clear();
            changed_.notify_all();
        }
        changed_.wait(lock, [&] { return round != finish_round_; });
    }

private:
    void settle() {
        if (waiting_ == 0 || waiting_ + finished_ < threads_) return;
        diverged = diverged || finished_ > 0;
        waiting_ = 0;
        round_++;
        changed_.notify_all();
    }

    int threads_, waiting_ = 0, finished_ = 0, round_ = 0, finish_round_ = 0;
    std::mutex barrier_;
    std::condition_variable changed_;
};

inline bool run(const Kernel& kernel, unsigned blocks, unsigned threads, size_t bytes) {
    const unsigned together = std::min(blocks, 2u);
    std::vector<std::unique_ptr<ThreadBlock>> places;
    std::vector<std::thread> workers;
    for (unsigned p = 0; p < together; p++) places.emplace_back(new ThreadBlock(bytes, threads));
    for (unsigned p = 0; p < together; p++)
        for (unsigned t = 0; t < threads; t++)
            workers.emplace_back([&, p, t] {
                current = places[p].get();
                threadIdx = {t}, blockDim = {threads}, gridDim = {blocks};
                for (unsigned b = p; b < blocks; b += together) {
                    blockIdx = {b};
                    kernel();
                    places[p]->finish();
                }
            });
    for (auto& worker : workers) worker.join();
    return std::none_of(places.begin(), places.end(), [](auto& p) { return p->diverged; });
}

#else

// Threads take turns: each runs until it waits or ends, then the next one.
class FiberBlock : public Block {
public:
    FiberBlock(size_t bytes, unsigned threads) : Block(bytes), fibers_(threads) {
        for (Fiber& fiber : fibers_) fiber.stack.resize(kStack);
    }

    void wait() override { swapcontext(&fibers_[threadIdx.x].context, &scheduler_); }

    void run(const Kernel& kernel) {
        kernel_ = &kernel;
        for (Fiber& fiber : fibers_) prepare(fiber);
        for (size_t ended = 0; ended < fibers_.size() && !diverged;) {
            ended = 0;
            for (unsigned t = 0; t < fibers_.size(); t++) {
                threadIdx = {t};
                if (!fibers_[t].ended) swapcontext(&scheduler_, &fibers_[t].context);
                ended += fibers_[t].ended;
            }
            diverged = ended > 0 && ended < fibers_.size();
        }
    }

private:
    static constexpr size_t kStack = 64 * 1024;

    struct Fiber {
        ucontext_t context;
        std::vector<char> stack;
        bool ended = false;
    };

    static void enter() {
        auto* block = static_cast<FiberBlock*>(current);
        (*block->kernel_)();
        block->fibers_[threadIdx.x].ended = true;
    }

    void prepare(Fiber& fiber) {
        fiber.ended = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler_;
        makecontext(&fiber.context, enter, 0);
    }

    const Kernel* kernel_ = nullptr;
    std::vector<Fiber> fibers_;
    ucontext_t scheduler_;
};

inline bool run(const Kernel& kernel, unsigned blocks, unsigned threads, size_t bytes) {
    FiberBlock block(bytes, threads);
    current = &block;
    blockDim = {threads}, gridDim = {blocks};
    for (unsigned b = 0; b < blocks && !block.diverged; b++) {
        blockIdx = {b};
        block.clear();
        block.run(kernel);
    }
    return !block.diverged;
}

#endif

inline std::map<const void*, int64_t>& shared_on_request() {
    static std::map<const void*, int64_t> bytes;
    return bytes;
}

// `key` names the kernel, where the text of the launch tells which instance of a template it is.
inline void launch(const void* key, const Kernel& kernel, int64_t blocks, int64_t threads,
                   int64_t bytes = 0, cudaStream_t = nullptr) {
    const int64_t allowed = std::max(kShared, key ? shared_on_request()[key] : 0);
    if (blocks < 1 || blocks > kMaxBlocks || threads < 1 || threads > kMaxThreads)
        last_error = cudaErrorInvalidConfiguration;
    else if (bytes < 0 || bytes > allowed) last_error = cudaErrorInvalidValue;
    else if (!run(kernel, blocks, threads, bytes)) last_error = cudaErrorLaunchFailure;
}

template <class T, class Change>
T change(T* place, Change changed) {
    T before, after;
    __atomic_load(place, &before, __ATOMIC_RELAXED);
    do after = changed(before);
    while (!__atomic_compare_exchange(place, &before, &after, true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED));
    return before;
}

}  // namespace cuda_on_host

inline void __syncthreads() { cuda_on_host::current->wait(); }

template <class T>
T atomicAdd(T* place, T value) {
    return cuda_on_host::change(place, [=](T before) { return before + value; });
}
template <class T>
T atomicMin(T* place, T value) {
    return cuda_on_host::change(place, [=](T before) { return std::min(before, value); });
}

inline cudaError_t cudaGetLastError() { return std::exchange(cuda_on_host::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
    static thread_local std::string text;
    text = "CUDA error " + std::to_string(error);
    return text.c_str();
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaFuncSetAttribute(const void* kernel, int attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        value > cuda_on_host::kSharedOnRequest)
        return cuda_on_host::last_error = cudaErrorInvalidValue;
    cuda_on_host::shared_on_request()[kernel] = value;
    return cudaSuccess;
}
inline cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t) {
    *memory = std::malloc(bytes);
    if (*memory == nullptr) return cuda_on_host::last_error = cudaErrorMemoryAllocation;
    std::memset(*memory, cuda_on_host::kPoison - 1, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
    std::memset(memory, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
    std::free(memory);
    return cudaSuccess;
}
