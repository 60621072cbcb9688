"""The kernels in C++ and CUDA, called through plain C functions (csrc/interface.h)."""

import ctypes
import logging
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .build import BuildError, Kernels, Mode
from .types import Fragments, View

KERNELS = Kernels(
    "neural_renderer",
    Path(__file__).parent / "csrc",
    cache_variable="NEURAL_RENDERER_CACHE",
    mode_variable="NEURAL_RENDERER_OPS",
    logger=logging.getLogger("neural_renderer"),
)

# Fused multiply-adds would take from edge functions the symmetry that keeps meshes tight.
CPU_OPTIONS = (
    *("-pthread", "-fopenmp-simd", "-ffp-contract=off"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
CUDA_OPTIONS = ("-fmad=false",)


def library(device: torch.device, mode: Mode) -> ctypes.CDLL | None:
    """The kernels for tensors of a device; None means that plain torch must do the work.

    Raises:
        BuildError: if the mode is 'native' and they cannot be had.
    """
    if device.type == "cpu":
        return KERNELS.load("rasterize.cpp", CPU_OPTIONS, mode)
    if device.type == "cuda":
        architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
        return KERNELS.load("rasterize.cu", (*CUDA_OPTIONS, f"-arch={architecture}"), mode)
    if mode == "native":
        raise BuildError(f"there are no native kernels for {device.type} tensors")
    return None


def rasterize(faces: Tensor, view: View) -> Fragments:
    """See `reference.rasterize`."""
    return Fragments(*_Rasterize.apply(faces, view))


def sample(textures: Tensor, fragments: Fragments, background: Tensor) -> Tensor:
    """See `reference.sample`."""
    return _Sample.apply(textures, fragments.index, fragments.weights, background)


def sweep(
    faces: Tensor, fragments: Fragments, image: Tensor, grad: Tensor, view: View, eps: float
) -> Tensor:
    """See `reference.sweep`."""
    faces = faces.contiguous()
    moved = torch.zeros_like(faces)
    _call(
        "sweep", faces, faces, fragments.index, fragments.depth, image, grad, *faces.shape[:2],
        image.shape[1], view.size, int(view.perspective), eps, moved,
    )  # fmt: skip
    return moved


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, faces, view):
        faces = faces.contiguous()
        batch, count, size = *faces.shape[:2], view.size
        index = faces.new_empty(batch, size, size, dtype=torch.int32)
        weights = faces.new_empty(batch, 3, size, size)
        depth = faces.new_empty(batch, size, size)
        _call(
            "rasterize", faces, faces, batch, count, size, int(view.perspective), view.near,
            view.far, index, weights, depth,
        )  # fmt: skip
        ctx.save_for_backward(faces, index)
        ctx.view = view
        ctx.mark_non_differentiable(index, weights)
        ctx.set_materialize_grads(False)
        return index, weights, depth

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_index, grad_weights, grad_depth):
        if grad_depth is None:
            return None, None
        faces, index = ctx.saved_tensors
        grad = torch.zeros_like(faces, dtype=torch.float64)
        _call(
            "depth_backward", faces, faces, index, grad_depth.contiguous(), *faces.shape[:2],
            ctx.view.size, int(ctx.view.perspective), grad,
        )  # fmt: skip
        return grad.to(faces.dtype), None


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, textures, index, weights, background):
        textures = textures.contiguous()
        batch, count, cube = textures.shape[:3]
        pixels = index[0].numel() if batch else 0
        rgb = torch.empty_like(weights)
        _call(
            "sample", rgb, textures, index, weights, background.contiguous(), batch, count, pixels,
            cube, rgb,
        )  # fmt: skip
        ctx.save_for_backward(index, weights)
        ctx.shape = textures.shape
        return rgb

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_rgb):
        index, weights = ctx.saved_tensors
        batch, count, cube = ctx.shape[:3]
        grad = grad_rgb.new_zeros(ctx.shape)
        pixels = index[0].numel() if batch else 0
        _call(
            "sample_backward", weights, index, weights, grad_rgb.contiguous(), batch, count, pixels,
            cube, grad,
        )  # fmt: skip
        return grad, None, None, None


def _call(name: str, like: Tensor, *arguments: Tensor | int | float) -> None:
    """Call nr_NAME_DTYPE, with the dtype and the device of `like`."""
    dtype = str(like.dtype).removeprefix("torch.")
    function = getattr(library(like.device, "native"), f"nr_{name}_{dtype}")
    function.restype = ctypes.c_char_p
    if like.is_cuda:
        place, stream = like.device.index, torch.cuda.current_stream(like.device).cuda_stream
    else:
        place, stream = torch.get_num_threads(), None
    error = function(*map(_as_c, (*arguments, place)), ctypes.c_void_p(stream))
    if error:
        raise RuntimeError(f"neural_renderer's {name} failed: {error.decode()}")


def _as_c(value: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value)
