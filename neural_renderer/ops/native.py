"""The kernels in C++ and CUDA, called through plain C functions (csrc/interface.h)."""

import ctypes
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .build import BuildError, Kernels, Mode
from .registration import constant_when_traced, register
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


@constant_when_traced
def available(device: torch.device, mode: Mode) -> bool:
    """Whether there are kernels (see `library`); tensors without values need none.

    Raises:
        BuildError: if the mode is 'native' and they cannot be had.
    """
    if device.type == "meta" or (device.type == "cuda" and not torch.cuda.is_available()):
        return mode != "torch"
    return library(device, mode) is not None


def rasterize(faces: Tensor, view: View) -> Fragments:
    """See `reference.rasterize`."""
    return Fragments(*_rasterize(faces, *view))


def sample(textures: Tensor, fragments: Fragments, background: Tensor) -> Tensor:
    """See `reference.sample`."""
    return _sample(textures, fragments.face_index, fragments.weights, background)


def sweep(
    faces: Tensor, fragments: Fragments, image: Tensor, grad: Tensor, view: View, eps: float
) -> Tensor:
    """See `reference.sweep`."""
    index, _, depth = fragments
    return _sweep(faces, index, depth, image, grad, view.size, view.perspective, eps)


def _draw(
    faces: Tensor, size: int, near: float, far: float, perspective: bool
) -> tuple[Tensor, Tensor, Tensor]:
    faces = faces.contiguous()
    fragments = _empty_fragments(faces, size, near, far, perspective)
    _call(
        "rasterize", faces, faces, *faces.shape[:2], size, int(perspective), near, far, *fragments
    )
    return fragments


def _empty_fragments(
    faces: Tensor, size: int, near: float, far: float, perspective: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch = faces.shape[0]
    return (
        faces.new_empty(batch, size, size, dtype=torch.int32),
        faces.new_empty(batch, 3, size, size),
        faces.new_empty(batch, size, size),
    )


def _keep_drawing(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    faces, ctx.size, _, _, ctx.perspective = inputs
    index, weights, _ = output
    ctx.save_for_backward(faces, index)
    ctx.mark_non_differentiable(index, weights)
    ctx.set_materialize_grads(False)


def _draw_backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_depth, grad = gradients[2], None
    if grad_depth is not None:
        grad = _depth_gradient(*ctx.saved_tensors, grad_depth, ctx.size, ctx.perspective)
    return grad, None, None, None, None


def _depth_to_faces(
    faces: Tensor, index: Tensor, grad: Tensor, size: int, perspective: bool
) -> Tensor:
    faces = faces.contiguous()
    total = torch.zeros_like(faces, dtype=torch.float64)
    _call(
        "depth_backward", faces, faces, index, grad.contiguous(), *faces.shape[:2], size,
        int(perspective), total,
    )  # fmt: skip
    return total.to(faces.dtype)


def _look_up(textures: Tensor, index: Tensor, weights: Tensor, background: Tensor) -> Tensor:
    textures = textures.contiguous()
    rgb = torch.empty_like(weights)
    _call(
        "sample", rgb, textures, index, weights, background.contiguous(),
        *_sizes(textures.shape, index), rgb,
    )  # fmt: skip
    return rgb


def _empty_colors(textures: Tensor, index: Tensor, weights: Tensor, background: Tensor) -> Tensor:
    return torch.empty_like(weights)


def _keep_lookup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    textures, index, weights, _ = inputs
    ctx.save_for_backward(index, weights)
    ctx.shape = textures.shape


def _look_up_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _texture_gradient(*ctx.saved_tensors, grad, ctx.shape), None, None, None


def _colors_to_textures(
    index: Tensor, weights: Tensor, grad: Tensor, shape: Sequence[int]
) -> Tensor:
    total = grad.new_zeros(shape)
    _call(
        "sample_backward", weights, index, weights, grad.contiguous(), *_sizes(shape, index), total
    )
    return total


def _empty_textures(index: Tensor, weights: Tensor, grad: Tensor, shape: Sequence[int]) -> Tensor:
    return grad.new_empty(shape)


def _sizes(textures: Sequence[int], index: Tensor) -> tuple[int, int, int, int]:
    """Batch, faces, pixels and cube of a lookup."""
    batch, count, cube = textures[:3]
    return batch, count, index.shape[1] * index.shape[2], cube


def _sweep_edges(
    faces: Tensor,
    index: Tensor,
    depth: Tensor,
    image: Tensor,
    grad: Tensor,
    size: int,
    perspective: bool,
    eps: float,
) -> Tensor:
    faces = faces.contiguous()
    moved = torch.zeros_like(faces)
    _call(
        "sweep", faces, faces, index, depth, image.contiguous(), grad.contiguous(),
        *faces.shape[:2], image.shape[1], size, int(perspective), eps, moved,
    )  # fmt: skip
    return moved


def _empty_faces(faces: Tensor, *_: Any) -> Tensor:
    return faces.new_empty(faces.shape)


_rasterize = register(
    "neural_renderer::rasterize",
    _draw,
    fake=_empty_fragments,
    setup_context=_keep_drawing,
    backward=_draw_backward,
    once=True,
)
_depth_gradient = register("neural_renderer::depth_gradient", _depth_to_faces, fake=_empty_faces)
_sample = register(
    "neural_renderer::sample",
    _look_up,
    fake=_empty_colors,
    setup_context=_keep_lookup,
    backward=_look_up_backward,
    once=True,
)
_texture_gradient = register(
    "neural_renderer::texture_gradient", _colors_to_textures, fake=_empty_textures
)
_sweep = register("neural_renderer::sweep", _sweep_edges, fake=_empty_faces)


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
