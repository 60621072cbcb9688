"""Tri-plane lookup and decoding: from points in space to density and color.

EG3D (Chan et al. 2022), section 3.2: project a point on three planes, average the features found
there, decode them with a small MLP.
"""

import ctypes
import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    """Density and color of a tri-plane field at points.

    planes: [B, 3, C, H, W], covering the cube [-box_warp/2, box_warp/2]^3, zero outside.
    points: [B, N, 3] in world units. Differentiable once in planes, points and decoder.
    The native kernels take float32 tensors, on a GPU with 16 or 32 channels and colors. Planes
    whose channels lie side by side in memory (views of channels-last images) spare them a copy.
    """
    tensors = (planes, points, *decoder)
    library = native_library(planes.device) if _is_for_native(*tensors) else None
    if library is None:
        return triplane_render_torch(planes, points, decoder, box_warp=box_warp, axes=axes)
    native = _Native if planes.device.type == "cpu" else _NativeCuda
    return FieldSamples(*native.apply(library, box_warp, axes, *tensors))


def triplane_render_torch(
    planes: Tensor, points: Tensor, decoder: DecoderWeights, *, box_warp: float, axes: str = "full"
) -> FieldSamples:
    """`triplane_render` in plain torch, for every type and device; the kernels' oracle."""
    batch, count, _ = points.shape
    normalized = points * (2 / box_warp)
    grid = torch.stack([normalized[..., pair] for pair in PLANE_AXES[axes]], dim=1)
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


class _Shape(ctypes.Structure):
    """`Shape` of csrc/triplane_render.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "count", "channels", "height", "width")),
        *((name, ctypes.c_int64) for name in ("hidden", "colors")),
        ("plane_strides", ctypes.c_int64 * 4),
        ("axes", (ctypes.c_int64 * 2) * 3),
        ("scale", ctypes.c_float),
    ]


def _is_for_native(planes: Tensor, points: Tensor, *weights: Tensor) -> bool:
    """Texel offsets are 32-bit integers in the CPU kernel, and it divides by the batch size."""
    tensors = (planes, points, *weights)
    return (
        all(t.dtype == torch.float32 and t.device == planes.device for t in tensors)
        and 0 < planes[0].numel() < 2**31
        and points.numel() > 0
        and (planes.device.type == "cpu" or _fits_gpu(*weights))
    )


def native_library(device: torch.device) -> ctypes.CDLL | None:
    """The compiled kernels, or None when plain torch is to be used."""
    if device.type not in ("cpu", "cuda"):
        return None
    library = kernels.load("triplane_render", device)
    return library if library is None or device.type == "cuda" else _declare(library)


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
    """planes is [B, 3, C, H, W] with a channel stride of 1."""
    batch, _, channels, height, width = planes.shape
    strides = [planes.stride(i) for i in (0, 1, 3, 4)]
    return _Shape(
        *(batch, points.shape[1], channels, height, width, w1.shape[0], w2.shape[0] - 1),
        (ctypes.c_int64 * 4)(*strides),
        ((ctypes.c_int64 * 2) * 3)(*PLANE_AXES[axes]),
        2 / box_warp,
    )


class _Native(torch.autograd.Function):
    """The kernels of csrc/triplane_render.cpp; saves its inputs and the colors, nothing more."""

    @staticmethod
    def forward(ctx, library, box_warp, axes, planes, points, w1, b1, w2, b2):
        ctx.has_texels = _is_dense_with_unit_channel_stride(planes)
        texels = planes if ctx.has_texels else _to_texels(library, planes)
        points, w1, b1, w2, b2 = (t.contiguous() for t in (points, w1, b1, w2, b2))
        sigma = points.new_empty(*points.shape[:2], 1)
        color = points.new_empty(*points.shape[:2], w2.shape[0] - 1)
        ctx.kernels, ctx.shape = library, _describe(texels, points, w1, w2, box_warp, axes)
        inputs = (texels, points, w1, b1, w2, b2)
        library.triplane_render_forward(
            ctx.shape, *_pointers(*inputs, sigma, color), torch.get_num_threads()
        )
        ctx.save_for_backward(*inputs, color)
        return sigma, color

    @staticmethod
    @once_differentiable
    def backward(ctx, d_sigma, d_color):
        texels, points, w1, b1, w2, b2, color = ctx.saved_tensors
        _, _, _, need_planes, need_points, *need_weights = ctx.needs_input_grad
        d_sigma, d_color = d_sigma.contiguous(), d_color.contiguous()
        d_planes = torch.zeros_like(texels) if need_planes else None
        d_points = torch.empty_like(points) if need_points else None
        d_weights = [torch.empty_like(t) if any(need_weights) else None for t in (w1, b1, w2, b2)]
        ctx.kernels.triplane_render_backward(
            ctx.shape,
            *_pointers(texels, points, w1, b1, w2, b2, color),
            *_pointers(d_sigma, d_color, d_planes, d_points, *d_weights),
            torch.get_num_threads(),
        )
        if need_planes and not ctx.has_texels:
            d_planes = _to_planes(ctx.kernels, d_planes)
        return None, None, None, d_planes, d_points, *d_weights


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]


_GPU_SIZES = (16, 32)  # of channels and colors, for which csrc/triplane_render.cu has kernels
_GPU_BLOCK = 64  # its points per block
_GPU_SHARED_FLOATS = 99 * 1024 // 4  # shared memory of a block on every GPU since Ampere


def _fits_gpu(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> bool:
    hidden, channels = w1.shape
    weights = sum(t.numel() for t in (w1, b1, w2, b2))
    traces = _GPU_BLOCK * (channels + b2.numel() + 2 * hidden)
    sizes_known = channels in _GPU_SIZES and b2.numel() - 1 in _GPU_SIZES
    return sizes_known and weights + traces <= _GPU_SHARED_FLOATS


class _NativeCuda(torch.autograd.Function):
    """The kernels of csrc/triplane_render.cu."""

    @staticmethod
    def forward(ctx, library, box_warp, axes, planes, points, w1, b1, w2, b2):
        dense = _is_dense_with_unit_channel_stride(planes)
        texels = planes if dense else planes.movedim(2, 4).contiguous().movedim(4, 2)
        points, packed = points.contiguous(), pack(DecoderWeights(w1, b1, w2, b2))
        sigma = points.new_empty(*points.shape[:2], 1)
        color = points.new_empty(*points.shape[:2], w2.shape[0] - 1)
        tiles = -(-points[..., 0].numel() // _GPU_BLOCK)
        processors = torch.cuda.get_device_properties(planes.device).multi_processor_count
        ctx.kernels, ctx.blocks = library, min(tiles, 4 * processors)
        ctx.shape = _describe(texels, points, w1, w2, box_warp, axes)
        inputs = (packed, texels, points)
        _launch(ctx, planes.device, *inputs, sigma, color, None, None, None, None, None)
        ctx.save_for_backward(*inputs, color)
        return sigma, color

    @staticmethod
    @once_differentiable
    def backward(ctx, d_sigma, d_color):
        packed, texels, points, color = ctx.saved_tensors
        _, _, _, need_planes, need_points, *need_weights = ctx.needs_input_grad
        d_sigma, d_color = d_sigma.contiguous(), d_color.contiguous()
        d_planes = torch.zeros_like(texels) if need_planes else None
        d_points = torch.empty_like(points) if need_points else None
        sums = packed.new_zeros(ctx.blocks, packed.numel()) if any(need_weights) else None
        gradients = (d_planes, d_points, sums)
        _launch(
            ctx, texels.device, packed, texels, points, None, color, d_sigma, d_color, *gradients
        )
        d_weights = [None] * 4 if sums is None else unpack(sums.sum(0), ctx.shape)
        return None, None, None, d_planes, d_points, *d_weights


def _launch(ctx, device: torch.device, *tensors: Tensor | None) -> None:
    cuda.launch(
        ctx.kernels.triplane_render_cuda,
        device,
        ctypes.byref(ctx.shape),
        *cuda.pointers(*tensors),
        ctx.blocks,
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


def _is_dense_with_unit_channel_stride(planes: Tensor) -> bool:
    return planes.stride(2) == 1 and torch.empty_like(planes).stride() == planes.stride()


def _to_texels(library: ctypes.CDLL, planes: Tensor) -> Tensor:
    """A copy whose channels lie side by side; the shape stays [B, 3, C, H, W]."""
    source = planes.contiguous()
    target = planes.new_empty(planes.movedim(2, 4).shape)
    _transpose(library, source, target, planes.shape[2], planes.shape[3:].numel())
    return target.movedim(4, 2)


def _to_planes(library: ctypes.CDLL, texels: Tensor) -> Tensor:
    """The inverse of `_to_texels`: a contiguous copy."""
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
