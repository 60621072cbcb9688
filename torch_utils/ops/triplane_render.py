"""Tri-plane lookup and decoding: from points in space to density and colour.

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

from . import build

# The two axes of each plane; the first runs along the plane's width, the second along its height.
# 'eg3d' repeats x-z with its axes swapped: a slip that released EG3D-style weights depend on.
PLANE_AXES = {"full": ((0, 1), (0, 2), (2, 1)), "eg3d": ((0, 1), (0, 2), (2, 0))}


class DecoderWeights(NamedTuple):
    """A two-layer MLP, its learning-rate and fan-in factors multiplied in.

    w1: [hidden, C], b1: [hidden], w2: [1 + colours, hidden], b2: [1 + colours].
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


class FieldSamples(NamedTuple):
    """What the field holds at N points: sigma [B, N, 1] (before softplus), colour [B, N, F]."""

    sigma: Tensor
    colour: Tensor


def triplane_render(
    planes: Tensor, points: Tensor, decoder: DecoderWeights, *, box_warp: float, axes: str = "full"
) -> FieldSamples:
    """Density and colour of a tri-plane field at points.

    planes: [B, 3, C, H, W], covering the cube [-box_warp/2, box_warp/2]^3, zero outside.
    points: [B, N, 3] in world units. Differentiable once in planes, points and decoder.
    The native kernel takes float32 tensors on the CPU; it is fastest with channels-last planes.
    """
    tensors = (planes, points, *decoder)
    if all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors):
        library = _cpu_library()
        if library is not None:
            return FieldSamples(*_Native.apply(library, box_warp, axes, *tensors))
    return triplane_render_torch(planes, points, decoder, box_warp=box_warp, axes=axes)


def triplane_render_torch(
    planes: Tensor, points: Tensor, decoder: DecoderWeights, *, box_warp: float, axes: str = "full"
) -> FieldSamples:
    """`triplane_render` in plain torch, for every type and device; the kernels' oracle."""
    batch, count, _ = points.shape
    normalised = points * (2 / box_warp)
    grid = torch.stack([normalised[..., pair] for pair in PLANE_AXES[axes]], dim=1)
    features = F.grid_sample(
        planes.flatten(0, 1),
        grid.reshape(batch * 3, 1, count, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    features = features.reshape(batch, 3, -1, count).mean(dim=1)
    hidden = F.softplus(decoder.w1 @ features + decoder.b1[:, None])
    out = (decoder.w2 @ hidden + decoder.b2[:, None]).mT
    # The widened sigmoid of mip-NeRF lets colours reach 0 and 1 with finite weights.
    return FieldSamples(out[..., :1], torch.sigmoid(out[..., 1:]) * 1.002 - 0.001)


class _Shape(ctypes.Structure):
    """`Shape` of csrc/triplane_render.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "count", "channels", "height", "width")),
        *((name, ctypes.c_int64) for name in ("hidden", "colours")),
        ("plane_strides", ctypes.c_int64 * 4),
        ("axes", (ctypes.c_int64 * 2) * 3),
        ("scale", ctypes.c_float),
    ]


def _cpu_library() -> ctypes.CDLL | None:
    library = build.load_cpu("triplane_render")
    return library if library is None else _declare(library)


@functools.cache
def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer = ctypes.c_void_p
    shape = ctypes.POINTER(_Shape)
    library.triplane_render_forward.argtypes = [shape, *[pointer] * 8, ctypes.c_int]
    library.triplane_render_backward.argtypes = [shape, *[pointer] * 15, ctypes.c_int]
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


def _texels_first(planes: Tensor) -> Tensor:
    """The same planes with the channels of a texel side by side; a copy unless they are so."""
    if planes.stride(2) == 1 and torch.empty_like(planes).stride() == planes.stride():
        return planes
    return planes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx, library, box_warp, axes, planes, points, w1, b1, w2, b2):
        planes = _texels_first(planes)
        points, w1, b1, w2, b2 = (t.contiguous() for t in (points, w1, b1, w2, b2))
        batch, count, _ = points.shape
        sigma = points.new_empty(batch, count, 1)
        colour = points.new_empty(batch, count, w2.shape[0] - 1)
        ctx.library, ctx.shape = library, _describe(planes, points, w1, w2, box_warp, axes)
        inputs = (planes, points, w1, b1, w2, b2)
        library.triplane_render_forward(
            ctx.shape, *_pointers(*inputs, sigma, colour), torch.get_num_threads()
        )
        ctx.save_for_backward(*inputs, colour)
        return sigma, colour

    @staticmethod
    @once_differentiable
    def backward(ctx, d_sigma, d_colour):
        planes, points, w1, b1, w2, b2, colour = ctx.saved_tensors
        _, _, _, need_planes, need_points, *need_weights = ctx.needs_input_grad
        d_planes = torch.zeros_like(planes) if need_planes else None
        d_points = torch.empty_like(points) if need_points else None
        d_weights = [torch.empty_like(t) if any(need_weights) else None for t in (w1, b1, w2, b2)]
        gradients = (d_planes, d_points, *d_weights)
        ctx.library.triplane_render_backward(
            ctx.shape,
            *_pointers(planes, points, w1, b1, w2, b2, colour),
            *_pointers(d_sigma.contiguous(), d_colour.contiguous(), *gradients),
            torch.get_num_threads(),
        )
        return None, None, None, *gradients


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]
