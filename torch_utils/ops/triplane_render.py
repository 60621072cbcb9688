"""Tri-plane lookup and decoding: from points in space to density and color.

EG3D (Chan et al. 2022), section 3.2: project a point on three planes, average the features found
there, decode them with a small MLP.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dnnlib import UserError
from neural_renderer.ops.registration import is_traced, register

from . import cuda, kernels

# The two axes of each plane; the first runs along the plane's width, the second along its height.
# 'eg3d' repeats x-z with its axes swapped: a slip that released EG3D-style weights depend on.
PLANE_AXES = {"full": ((0, 1), (0, 2), (2, 1)), "eg3d": ((0, 1), (0, 2), (2, 0))}


class DecoderWeights(NamedTuple):
    """A two-layer MLP, its learning-rate and fan-in factors multiplied in.

    w1: [hidden, C], b1: [hidden], w2: [1 + colors, hidden], b2: [1 + colors].
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


class FieldSamples(NamedTuple):
    """What the field holds at N points: sigma [B, N, 1] (before softplus), color [B, N, F]."""

    sigma: Tensor
    color: Tensor


def triplane_render(
    planes: Tensor, points: Tensor, decoder: DecoderWeights, *, box_warp: float, axes: str = "full"
) -> FieldSamples:
    """Density and color of a tri-plane field at points; differentiable once in every tensor.

    The native kernels take float32 tensors, on a GPU with 16 or 32 channels and colors. Planes
    whose channels lie side by side in memory (views of channels-last images) spare them a copy.

    Args:
        planes: [B, 3, C, H, W], covering the cube [-box_warp/2, box_warp/2]^3, zero outside.
        points: [B, N, 3] in world units.
        decoder: what turns features into density and color.
        box_warp: the cube's edge in world units.
        axes: a name in `PLANE_AXES`.
    """
    if not _has_kernel(planes, points, *decoder):
        return triplane_render_torch(planes, points, decoder, box_warp=box_warp, axes=axes)
    # here, once for the forward and the backward pass
    return FieldSamples(*_render(as_texels(planes), points, *decoder, box_warp, axes))


def as_texels(planes: Tensor) -> Tensor:
    """Planes [B, 3, C, H, W] whose channels lie side by side in memory; differentiable.

    So native kernels read them: arranged once, each `triplane_render` is spared a copy. Where plain
    torch computes, or a compiler traces, they stay as they are.
    """
    if is_traced(planes) or _has_texels(planes) or not _planes_suit(planes):
        return planes
    return _Texels.apply(planes)


def triplane_render_torch(
    planes: Tensor, points: Tensor, decoder: DecoderWeights, *, box_warp: float, axes: str = "full"
) -> FieldSamples:
    """`triplane_render` in plain torch, for every type and device; the kernels' oracle."""
    batch, count, _ = points.shape
    along = (points * (2 / box_warp)).unbind(-1)
    grid = torch.stack([torch.stack([along[i] for i in pair], -1) for pair in PLANE_AXES[axes]], 1)
    features = F.grid_sample(
        planes.flatten(0, 1),
        grid.reshape(batch * 3, 1, count, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    features = features.reshape(batch, 3, planes.shape[2], count).mean(dim=1)
    hidden = F.softplus(decoder.w1 @ features + decoder.b1[:, None])
    out = (decoder.w2 @ hidden + decoder.b2[:, None]).mT
    # The widened sigmoid of mip-NeRF lets colors reach 0 and 1 with finite weights.
    return FieldSamples(out[..., :1], torch.sigmoid(out[..., 1:]) * 1.002 - 0.001)


_Axis = ctypes.c_int64 * 2


class _Shape(ctypes.Structure):
    """`Shape` of csrc/triplane_render.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "count", "channels", "height", "width")),
        *((name, ctypes.c_int64) for name in ("hidden", "colors")),
        ("plane_strides", ctypes.c_int64 * 4),
        ("axes", _Axis * 3),
        ("scale", ctypes.c_float),
    ]


def _has_kernel(
    planes: Tensor, points: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> bool:
    tensors, device = (points, w1, b1, w2, b2), planes.device
    return (
        all(t.dtype == torch.float32 and t.device == device for t in tensors)
        and points.numel() > 0
        and (not cuda.is_gpu(device) or _fits_gpu(w1, b2))
        and _planes_suit(planes)
    )


def _planes_suit(planes: Tensor) -> bool:
    """Texel offsets are 32-bit integers in the CPU kernel, and it divides by the batch size."""
    return (
        planes.device.type in ("cpu", "cuda")
        and planes.dtype == torch.float32
        and planes.numel() > 0
        and planes.shape[1:].numel() < 2**31
        and kernels.available("triplane_render", planes.device)
    )


def native_library(device: torch.device) -> ctypes.CDLL | None:
    """The compiled kernels, or None when plain torch is to be used."""
    if device.type not in ("cpu", "cuda"):
        return None
    library = kernels.load("triplane_render", device)
    return library if library is None or cuda.is_gpu(device) else _declare(library)


def _library(device: torch.device) -> ctypes.CDLL:
    """The compiled kernels for an operation that has been chosen, maybe in another process."""
    library = native_library(device)
    if library is None:
        raise UserError(
            "this program was compiled with native kernels, which are not to be had here; compile "
            "it anew, or choose the mode native to see why"
        )
    return library


@functools.cache
def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer = ctypes.c_void_p
    shape = ctypes.POINTER(_Shape)
    library.triplane_render_forward.argtypes = [shape, *[pointer] * 8, ctypes.c_int]
    library.triplane_render_backward.argtypes = [shape, *[pointer] * 15, ctypes.c_int]
    library.triplane_render_transpose.argtypes = [
        *[pointer] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_int,
    ]
    library.triplane_render_forward.restype = library.triplane_render_backward.restype = None
    return library


def _describe(
    planes: Tensor, points: Tensor, w1: Tensor, w2: Tensor, box_warp: float, axes: str
) -> _Shape:
    """The kernels' description; planes are [B, 3, C, H, W] with a channel stride of 1."""
    batch, _, channels, height, width = planes.shape
    strides = [planes.stride(i) for i in (0, 1, 3, 4)]
    return _Shape(
        *(batch, points.shape[1], channels, height, width, w1.shape[0], w2.shape[0] - 1),
        (ctypes.c_int64 * 4)(*strides),
        (_Axis * 3)(*(_Axis(*pair) for pair in PLANE_AXES[axes])),
        2 / box_warp,
    )


def _forward(
    planes: Tensor,
    points: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    box_warp: float,
    axes: str,
) -> tuple[Tensor, Tensor]:
    library = _library(planes.device)
    texels = _arrange(library, planes)
    points, w1, b1, w2, b2 = (t.contiguous() for t in (points, w1, b1, w2, b2))
    sigma, color = _forward_fake(planes, points, w1, b1, w2, b2, box_warp, axes)
    shape = _describe(texels, points, w1, w2, box_warp, axes)
    if cuda.is_gpu(planes.device):
        packed = pack(DecoderWeights(w1, b1, w2, b2))
        _launch(library, shape, packed, texels, points, sigma, color, None, None, None, None, None)
    else:
        outputs = _pointers(texels, points, w1, b1, w2, b2, sigma, color)
        library.triplane_render_forward(shape, *outputs, torch.get_num_threads())
    return sigma, color


def _forward_fake(
    planes: Tensor,
    points: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    box_warp: float,
    axes: str,
) -> tuple[Tensor, Tensor]:
    batch, count, _ = points.shape
    return points.new_empty(batch, count, 1), points.new_empty(batch, count, w2.shape[0] - 1)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """The inputs and the colors, nothing more."""
    *tensors, ctx.box_warp, ctx.axes = inputs
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, d_sigma: Tensor, d_color: Tensor) -> tuple[Tensor | None, ...]:
    planes, points, *weights = ctx.needs_input_grad[:6]
    wanted = [planes, points, any(weights)]
    found = iter(
        _render_gradients(*ctx.saved_tensors, d_sigma, d_color, ctx.box_warp, ctx.axes, wanted)
    )
    d_planes, d_points = (next(found) if want else None for want in wanted[:2])
    d_weights: list[Tensor | None] = list(found) or [None] * 4
    return d_planes, d_points, *d_weights, None, None


def _gradients(
    planes: Tensor,
    points: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    color: Tensor,
    d_sigma: Tensor,
    d_color: Tensor,
    box_warp: float,
    axes: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Of planes, of points, and of the four weights: those of the three that are wanted."""
    library = _library(planes.device)
    texels = _arrange(library, planes)
    points, w1, b1, w2, b2 = (t.contiguous() for t in (points, w1, b1, w2, b2))
    d_sigma, d_color = d_sigma.contiguous(), d_color.contiguous()
    d_planes = torch.zeros_like(texels) if wanted[0] else None
    d_points = torch.empty_like(points) if wanted[1] else None
    shape = _describe(texels, points, w1, w2, box_warp, axes)
    weights = DecoderWeights(w1, b1, w2, b2)
    outputs = (color.contiguous(), d_sigma, d_color, d_planes, d_points)
    run = _cuda_gradients if cuda.is_gpu(planes.device) else _cpu_gradients
    d_weights = run(library, shape, texels, points, weights, outputs, wanted[2])
    if d_planes is not None and texels is not planes:
        d_planes = _to_planes(library, d_planes)
    return [t for t in (d_planes, d_points, *d_weights) if t is not None]


def _gradients_fake(
    planes: Tensor,
    points: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    color: Tensor,
    d_sigma: Tensor,
    d_color: Tensor,
    box_warp: float,
    axes: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    d_planes = torch.empty_like(planes) if _has_texels(planes) else planes.new_empty(planes.shape)
    groups = ([d_planes], [points], [w1, b1, w2, b2])
    tensors = [t for group, want in zip(groups, wanted, strict=True) if want for t in group]
    return [t if t is d_planes else t.new_empty(t.shape) for t in tensors]


_render_gradients = register("pof3d::triplane_render_gradients", _gradients, fake=_gradients_fake)
_render = register(
    "pof3d::triplane_render",
    _forward,
    fake=_forward_fake,
    setup_context=_keep_for_backward,
    backward=_backward,
    once=True,
)


def _cpu_gradients(
    library: ctypes.CDLL,
    shape: _Shape,
    texels: Tensor,
    points: Tensor,
    weights: DecoderWeights,
    outputs: tuple[Tensor | None, ...],
    want_weights: bool,
) -> list[Tensor]:
    """Fill the gradients in `outputs`; return those of the weights."""
    d_weights = [torch.empty_like(t) for t in weights] if want_weights else []
    slots: list[int | None] = _pointers(*d_weights) or [None] * 4
    library.triplane_render_backward(
        shape, *_pointers(texels, points, *weights, *outputs), *slots, torch.get_num_threads()
    )
    return d_weights


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]


_GPU_SIZES = (16, 32)  # of channels and colors, for which csrc/triplane_render.cu has kernels
_GPU_BLOCK = 64  # its points per block
GPU_SHARED_BYTES = 99 * 1024  # that a block may ask for on every GPU since Ampere


def gpu_shared_bytes(channels: int, hidden: int, colors: int) -> int:
    """Shared memory that a block of the gradients' GPU kernel takes; the forward pass takes less.

    The decoder's weights, and of each point its features, its two hidden layers and its outputs.
    """
    weights = hidden * (channels + 1) + (colors + 1) * (hidden + 1)
    traces = _GPU_BLOCK * (channels + colors + 1 + 2 * hidden)
    return 4 * (weights + traces)


def _fits_gpu(w1: Tensor, b2: Tensor) -> bool:
    hidden, channels = w1.shape
    colors = b2.numel() - 1
    sizes_known = channels in _GPU_SIZES and colors in _GPU_SIZES
    return sizes_known and gpu_shared_bytes(channels, hidden, colors) <= GPU_SHARED_BYTES


def _cuda_gradients(
    library: ctypes.CDLL,
    shape: _Shape,
    texels: Tensor,
    points: Tensor,
    weights: DecoderWeights,
    outputs: tuple[Tensor | None, ...],
    want_weights: bool,
) -> list[Tensor]:
    """Fill the gradients in `outputs`; return those of the weights."""
    packed = pack(weights)
    sums = packed.new_zeros(_blocks(points), packed.numel()) if want_weights else None
    _launch(library, shape, packed, texels, points, None, *outputs, sums)
    return [] if sums is None else list(unpack(sums.sum(0), shape))


def _blocks(points: Tensor) -> int:
    tiles = -(-points[..., 0].numel() // _GPU_BLOCK)
    return min(tiles, 4 * cuda.processors(points.device))


def _launch(
    library: ctypes.CDLL,
    shape: _Shape,
    packed: Tensor,
    texels: Tensor,
    points: Tensor,
    *rest: Tensor | None,
) -> None:
    cuda.launch(
        library.triplane_render_cuda,
        texels.device,
        ctypes.byref(shape),
        *cuda.pointers(packed, texels, points, *rest),
        _blocks(points),
    )


def pack(decoder: DecoderWeights) -> Tensor:
    """All weights in one array, in the order of `Weights` in csrc/triplane_point.h."""
    return torch.cat([decoder.w1.flatten(), decoder.b1, decoder.w2.T.flatten(), decoder.b2])


def unpack(packed: Tensor, shape: _Shape) -> DecoderWeights:
    """The inverse of `pack`."""
    hidden, outputs = shape.hidden, shape.colors + 1
    sizes = [hidden * shape.channels, hidden, hidden * outputs, outputs]
    w1, b1, w2, b2 = packed.split(sizes)
    return DecoderWeights(
        w1.reshape(hidden, -1), b1, w2.reshape(hidden, outputs).T.contiguous(), b2
    )


class _Texels(torch.autograd.Function):
    """Planes with their channels side by side, as kernels read them; the shape stays."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        return _arrange(_library(planes.device), planes)

    @staticmethod
    def backward(ctx: Any, d_texels: Tensor) -> Tensor:
        library = _library(d_texels.device)
        return _to_planes(library, _arrange(library, d_texels))


def _has_texels(planes: Tensor) -> bool:
    return planes.stride(2) == 1 and torch.empty_like(planes).stride() == planes.stride()


def _arrange(library: ctypes.CDLL, planes: Tensor) -> Tensor:
    """Planes whose channels lie side by side: a copy if need be."""
    if _has_texels(planes):
        return planes
    if cuda.is_gpu(planes.device):
        return planes.movedim(2, 4).contiguous().movedim(4, 2)
    source = planes.contiguous()
    target = planes.new_empty(planes.movedim(2, 4).shape)
    _transpose(library, source, target, planes.shape[2], planes.shape[3:].numel())
    return target.movedim(4, 2)


def _to_planes(library: ctypes.CDLL, texels: Tensor) -> Tensor:
    """The inverse of `_arrange`: a contiguous copy."""
    if cuda.is_gpu(texels.device):
        return texels.contiguous()
    target = texels.new_empty(texels.shape)
    _transpose(library, texels, target, texels.shape[3:].numel(), texels.shape[2])
    return target


def _transpose(
    library: ctypes.CDLL, source: Tensor, target: Tensor, rows: int, columns: int
) -> None:
    count = source.shape[0] * source.shape[1]
    library.triplane_render_transpose(
        *_pointers(source, target), count, rows, columns, torch.get_num_threads()
    )
