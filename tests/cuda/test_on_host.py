"""The pretended GPU itself: barriers, shared memory, limits, atomics; and that the tests of the
kernels notice what they are for."""

import ctypes

import pytest
import torch

from tests.cuda import on_host
from tests.cuda.conftest import load, without_barrier
from tests.cuda.test_kernels import field, rendering
from torch_utils.ops import triplane_render
from torch_utils.ops.triplane_render import triplane_render_torch

KERNELS = """
__global__ void sum_kernel(const float* x, float* total, int early) {
    __shared__ float part[64];
    extern __shared__ float copies[];
    part[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    if (int(threadIdx.x) < early) return;
    __syncthreads();
    copies[threadIdx.x] = part[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
    atomicAdd(total, copies[(threadIdx.x + 1) % blockDim.x]);
}

template <class T>
__global__ void smallest_kernel(T* out) { atomicMin(out, T(blockDim.x * blockIdx.x)); }

extern "C" int sums(const float* x, float* total, int blocks, int threads, int bytes, int early) {
    sum_kernel<<<blocks, threads, bytes, cudaStream_t(nullptr)>>>(x, total, early);
    return cudaGetLastError();
}

extern "C" int reserve(int bytes) {
    cudaFuncSetAttribute((const void*)smallest_kernel<int>,
                         cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    return cudaGetLastError();
}

extern "C" int smallest(int* out, int bytes) {
    smallest_kernel<int><<<4, 8, bytes>>>(out);
    return cudaGetLastError();
}
"""


@pytest.fixture(scope="module", params=[(), on_host.THREADS], ids=["fibers", "threads"])
def kernels(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("csrc")
    (folder / "kernels.cu").write_text(KERNELS)
    built = on_host.compile_for_host(
        folder / "kernels.cu", tmp_path_factory.mktemp("out"), request.param
    )
    return ctypes.CDLL(str(built))


def _sums(kernels, threads=64, blocks=5, early=0, bytes_=None):
    x, total = torch.randn(blocks * threads), torch.zeros(1)
    bytes_ = threads * 4 if bytes_ is None else bytes_
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, total)]
    return kernels.sums(*pointers, blocks, threads, bytes_, early), total, x


@pytest.mark.parametrize("threads", [1, 33, 64])
def test_threads_wait_for_each_other_and_add_up(kernels, threads):
    error, total, x = _sums(kernels, threads)
    assert error == 0
    torch.testing.assert_close(total[0], x.sum(), rtol=1e-4, atol=1e-4)


def test_a_barrier_that_not_all_threads_reach_is_an_error(kernels):
    assert _sums(kernels, early=3)[0] == 719
    assert _sums(kernels)[0] == 0  # errors are told once


@pytest.mark.parametrize("threads, blocks, error", [(1025, 1, 9), (0, 1, 9), (64, 0, 9)])
def test_impossible_launches_are_refused(kernels, threads, blocks, error):
    assert _sums(kernels, threads, blocks, bytes_=0)[0] == error


def test_much_shared_memory_must_be_asked_for(kernels):
    out = torch.tensor([9], dtype=torch.int32)
    pointer = ctypes.c_void_p(out.data_ptr())
    assert kernels.reserve(0) == 0
    assert [kernels.smallest(pointer, kib * 1024) for kib in (48, 49)] == [0, 1]
    assert kernels.reserve(99 * 1024) == 0
    assert [kernels.smallest(pointer, kib * 1024) for kib in (99, 100)] == [0, 1]
    assert kernels.reserve(100 * 1024) == 1
    assert out == 0


@pytest.mark.parametrize("barrier", range(3))
def test_results_tell_that_a_barrier_is_missing(gpu, barrier, tmp_path):
    """Of load_weights, between traces and sums, between sums and the next points' traces."""

    def change(text):
        return without_barrier(text, barrier)

    gpu["triplane_render"] = load("triplane_render", tmp_path, change=change)
    inputs = field()
    assert not torch.allclose(*_gradients_of_weights(inputs), rtol=1e-4, atol=1e-4)


def test_results_are_right_with_all_barriers(gpu):
    assert torch.allclose(*_gradients_of_weights(field()), rtol=1e-4, atol=1e-4)


def _gradients_of_weights(inputs):
    w1 = inputs[2].requires_grad_()
    gradients = []
    for render in (triplane_render, triplane_render_torch):
        sigma, color = rendering(render)(*inputs)
        gradients += torch.autograd.grad(sigma.sum() + color.square().sum(), w1)
    return gradients
