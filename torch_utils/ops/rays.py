"""What happens along rays: points, importance samples, blending; each with a plain torch twin.

NeRF (Mildenhall et al. 2020). Notation: B samples, N rays each, S depths along a ray, F colors.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from neural_renderer.ops.registration import is_traced

from . import kernels
from .triplane_render import FieldSamples


class Blended(NamedTuple):
    """Sums over the samples of each ray, weighted by what each adds to its opacity.

    color: [B, N, F]; opacity: [B, N, 1], the sum of the weights; depth: [B, N, 1].
    """

    color: Tensor
    opacity: Tensor
    depth: Tensor


def points_on_rays(origins: Tensor, directions: Tensor, depths: Tensor) -> Tensor:
    """Origins and directions [B, N, 3], depths [B, N, S] -> points [B, N * S, 3].

    Differentiable once in the first two by the native kernel.
    """
    library = _library(origins, directions, depths)
    if library is None or depths.requires_grad:
        points = origins[:, :, None] + depths[..., None] * directions[:, :, None]
        return points.flatten(1, 2)
    return _Points.apply(library, origins, directions, depths)


def importance_depths(
    depths: Tensor, sigma: Tensor, u: Tensor, *, density_scale: float = 1
) -> Tensor:
    """Depths distributed like the (blurred) opacity of a first pass, by inverse transform.

    Args:
        depths: [B, N, S], ascending, world units.
        sigma: [B, N, S], density before softplus.
        u: [B, N, S'] in [0, 1), values of the cumulative distribution.
        density_scale: factor of densities.

    Returns:
        [B, N, S'], without gradient.
    """
    library = _library(depths, sigma, u)
    with torch.no_grad():
        if library is None or depths.shape[-1] < 4:
            return invert_weights(depths, interval_weights(sigma, depths, density_scale), u)
        depths, sigma, u = depths.contiguous(), sigma.contiguous(), u.contiguous()
        found = torch.empty_like(u)
        sizes = depths[..., 0].numel(), depths.shape[-1], u.shape[-1]
        tensors = [t.data_ptr() for t in (depths, sigma, u, found)]
        library.rays_importance(*tensors, *sizes, density_scale, torch.get_num_threads())
        return found


def blend(
    passes: Sequence[FieldSamples], depths: Sequence[Tensor], *, density_scale: float = 1
) -> Blended:
    """Blend the samples of one or two passes (NeRF, eq. 3, on middles of intervals).

    Only densities are brought into the common order along the ray; colors, the bulk of the data,
    stay where they are and are weighted there. Differentiable once by the native kernel.

    Args:
        passes: of each, sigma [B, N, S, 1] before softplus and color [B, N, S, F] in [0, 1].
        depths: of each, [B, N, S] in world units, without gradient.
        density_scale: factor of densities.
    """
    tensors = [t for part in passes for t in part]
    library = _library(*tensors, *depths)
    if library is None or any(part.requires_grad for part in depths):
        return _blend_torch(passes, depths, density_scale)
    return Blended(*_Blend.apply(library, density_scale, *depths, *tensors))


def transmittance(density: Tensor, delta: Tensor) -> Tensor:
    """Share of the light that passes to the start of each interval, and to the end of the last.

    density, delta: [B, N, K] -> [B, N, K + 1] (NeRF, eq. 3; the small term keeps gradients alive).
    """
    passing = torch.exp(-density * delta) + 1e-10
    return F.pad(torch.cumprod(passing, dim=-1), (1, 0), value=1.0)


def interval_weights(sigma: Tensor, depths: Tensor, density_scale: float = 1) -> Tensor:
    """Opacity that each interval between samples adds to its ray (NeRF, eq. 3), [B, N, S-1].

    sigma: [B, N, S], density before softplus; depths: [B, N, S], ascending, world units.
    """
    delta = depths.diff(dim=-1)
    density = density_scale * F.softplus(_middles(sigma) - 1)
    return -torch.expm1(-density * delta) * transmittance(density, delta)[..., :-1]


def sample_weights(weights: Tensor) -> Tensor:
    """Weight of each sample: half of the interval on either side. [B, N, S-1] -> [B, N, S].

    The color of an interval is the mean of those at its ends.
    """
    return (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0))) / 2


def invert_weights(depths: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Depths distributed like the blurred weights of the intervals between them.

    depths: [B, N, S], weights: [B, N, S-1], u: [B, N, S'] in [0, 1) -> [B, N, S']. The blur is
    mip-NeRF's (Barron et al. 2021); the edges of the distribution lie at the middles between
    depths.
    """
    blurred = F.max_pool1d(weights.flatten(0, 1), 2, stride=1, padding=1)
    blurred = F.avg_pool1d(blurred, 2, stride=1).reshape_as(weights) + 0.01
    mass = blurred[..., 1:-1] + 1e-5
    mass = mass / mass.sum(dim=-1, keepdim=True)
    cdf = F.pad(mass.cumsum(dim=-1), (1, 0))
    edges = _middles(depths)
    above = torch.searchsorted(cdf, u.contiguous(), right=True)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=mass.shape[-1])
    cdf_below = cdf.gather(-1, below)
    span = cdf.gather(-1, above) - cdf_below
    fraction = (u - cdf_below) / torch.where(span < 1e-5, torch.ones_like(span), span)
    edge = edges.gather(-1, below)
    return edge + fraction * (edges.gather(-1, above) - edge)


def _blend_torch(
    passes: Sequence[FieldSamples], depths: Sequence[Tensor], density_scale: float
) -> Blended:
    sorted_depths, order = torch.cat(list(depths), dim=-1).sort(dim=-1)
    sigma = torch.cat([samples.sigma.squeeze(-1) for samples in passes], dim=-1)
    weights = interval_weights(sigma.gather(-1, order), sorted_depths, density_scale)
    sorted_weights = sample_weights(weights)
    own_weights = torch.zeros_like(sorted_weights).scatter(-1, order, sorted_weights)
    split_weights = own_weights.split([part.shape[-1] for part in depths], dim=-1)
    weighted = [
        (weight[..., None, :] @ samples.color).squeeze(-2)
        for weight, samples in zip(split_weights, passes, strict=True)
    ]
    depth = (weights * _middles(sorted_depths)).sum(dim=-1, keepdim=True)
    return Blended(sum(weighted, start=torch.zeros(())), weights.sum(dim=-1, keepdim=True), depth)


def _middles(x: Tensor) -> Tensor:
    return (x[..., :-1] + x[..., 1:]) / 2


def _library(*tensors: Tensor) -> ctypes.CDLL | None:
    """The compiled kernels, or None for plain torch: there are kernels for float32 on a CPU."""
    suited = all(t.dtype == torch.float32 and t.is_cpu and t.numel() > 0 for t in tensors)
    if not suited or is_traced(*tensors):
        return None
    library = kernels.load("rays", torch.device("cpu"))
    return None if library is None else _declare(library)


class _Pass(ctypes.Structure):
    """`Pass` of csrc/rays.cpp."""

    _fields_ = [
        ("count", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("depths", "sigma", "color", "d_sigma", "d_color")),
    ]


class _Rays(ctypes.Structure):
    """`Rays` of csrc/rays.cpp."""

    _fields_ = [
        ("rays", ctypes.c_int64),
        ("colors", ctypes.c_int64),
        ("density_scale", ctypes.c_float),
        ("passes", _Pass * 2),
    ]


@functools.cache
def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    rays = ctypes.POINTER(_Rays)
    arguments = {
        "rays_importance": [*[pointer] * 4, *[size] * 3, ctypes.c_float, threads],
        "rays_blend": [rays, *[pointer] * 3, threads],
        "rays_blend_backward": [rays, *[pointer] * 3, threads],
        "rays_points": [*[pointer] * 4, *[size] * 2, threads],
        "rays_points_backward": [*[pointer] * 4, *[size] * 2, threads],
    }
    for name, types in arguments.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, None
    return library


class _Points(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, library: ctypes.CDLL, origins: Tensor, directions: Tensor, depths: Tensor
    ) -> Tensor:
        origins, directions, depths = (t.contiguous() for t in (origins, directions, depths))
        batch, rays, samples = depths.shape
        points = depths.new_empty(batch, rays * samples, 3)
        tensors = [t.data_ptr() for t in (origins, directions, depths, points)]
        library.rays_points(*tensors, batch * rays, samples, torch.get_num_threads())
        ctx.library = library
        ctx.save_for_backward(depths)
        return points

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_points: Tensor) -> tuple[Tensor | None, ...]:
        (depths,) = ctx.saved_tensors
        batch, rays, samples = depths.shape
        d_origins, d_directions = depths.new_empty(2, batch, rays, 3)
        d_points = d_points.contiguous()
        tensors = [t.data_ptr() for t in (depths, d_points, d_origins, d_directions)]
        ctx.library.rays_points_backward(*tensors, batch * rays, samples, torch.get_num_threads())
        return None, d_origins, d_directions, None


class _Blend(torch.autograd.Function):
    """Takes the passes' depths, then sigma and color of each; saves nothing else."""

    @staticmethod
    def forward(
        ctx: Any, library: ctypes.CDLL, density_scale: float, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        tensors = tuple(t.contiguous() for t in tensors)
        ctx.library, ctx.density_scale = library, density_scale
        ctx.save_for_backward(*tensors)
        batch, rays = tensors[0].shape[:2]
        colors = tensors[-1].shape[-1]
        outputs = [tensors[0].new_empty(batch, rays, size) for size in (colors, 1, 1)]
        pointers = [t.data_ptr() for t in outputs]
        library.rays_blend(_describe(density_scale, tensors), *pointers, torch.get_num_threads())
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        passes = len(tensors) // 3
        gradients = [torch.empty_like(t) for t in tensors[passes:]]
        d_outputs = tuple(t.contiguous() for t in d_outputs)
        ctx.library.rays_blend_backward(
            _describe(ctx.density_scale, tensors, gradients),
            *(t.data_ptr() for t in d_outputs),
            torch.get_num_threads(),
        )
        return None, None, *[None] * passes, *gradients


def _describe(
    density_scale: float, tensors: Sequence[Tensor], gradients: Sequence[Tensor] = ()
) -> _Rays:
    count = len(tensors) // 3
    depths, fields = tensors[:count], tensors[count:]
    passes = (_Pass * 2)()
    for i, part in enumerate(depths):
        own = [part, *fields[2 * i : 2 * i + 2], *gradients[2 * i : 2 * i + 2]]
        passes[i] = _Pass(part.shape[-1], *(t.data_ptr() for t in own))
    return _Rays(depths[0][..., 0].numel(), fields[1].shape[-1], density_scale, passes)
