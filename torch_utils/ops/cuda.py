"""Calling the GPU kernels: types, pointers, the current stream."""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

# `with_type` of csrc/device.h
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


def is_gpu(device: torch.device) -> bool:
    """Whether the GPU kernels are those for tensors of that device; the one place that decides."""
    return device.type == "cuda"


def processors(device: torch.device) -> int:
    """How many blocks run side by side there, at least."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def is_dense(x: Tensor) -> bool:
    """Whether x fills its memory without gaps or overlaps, in whatever order of dimensions."""
    return torch.empty_like(x).stride() == x.stride()


def pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    """Addresses as arguments of a C function; None becomes a null pointer."""
    return [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]


def launch(kernel: Callable[..., int], device: torch.device, *arguments) -> None:
    """Run a C function that takes a stream last and returns a CUDA error code (0: none)."""
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        error = kernel(*arguments, ctypes.c_void_p(stream))
    if error:
        raise RuntimeError(f"CUDA error {error} in {kernel.__name__}")
