"""Volume rendering of a tri-plane field along rays.

Two passes as in NeRF (Mildenhall et al. 2020): depths spread evenly, then more where the first pass
saw something. Both sets take part in the final compositing; each point is evaluated once.
Notation: B samples, N rays each, S depths along a ray, F color channels.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_utils.ops import triplane_render
from torch_utils.ops.triplane_render import DecoderWeights, FieldSamples
from training.cameras import Rays
from training.config import RenderingConfig
from training.networks.layers import FullyConnected


class Decoder(nn.Module):
    """The MLP from plane features to density and color; its arithmetic is in `triplane_render`."""

    def __init__(self, plane_channels: int, hidden: int, color_channels: int):
        super().__init__()
        # The index 1 is the activation's in published checkpoints.
        self.net = nn.ModuleDict(
            {
                "0": FullyConnected(plane_channels, hidden),
                "2": FullyConnected(hidden, 1 + color_channels),
            }
        )

    def effective(self) -> DecoderWeights:
        return DecoderWeights(*self.net["0"].effective(), *self.net["2"].effective())


class RayDraws(NamedTuple):
    """The random numbers of one rendering, uniform in [0, 1).

    jitter: [B, N, S], shifts the first pass's depths. importance: [B, N, S'], picks the second's.
    """

    jitter: Tensor
    importance: Tensor


class Rendering(NamedTuple):
    """What the rays saw. features: [B, N, F] in [-1, 1]; depth: [B, N, 1], the distance from the
    camera in world units; opacity: [B, N, 1] in [0, 1], the sum of the weights."""

    features: Tensor
    depth: Tensor
    opacity: Tensor


def random_draws(rays: Rays, config: RenderingConfig) -> RayDraws:
    """Fresh draws for training."""
    shape = rays.origins.shape[:2]
    like = {"device": rays.origins.device, "dtype": rays.origins.dtype}
    return RayDraws(
        torch.rand(*shape, config.samples, **like),
        torch.rand(*shape, config.importance_samples, **like),
    )


def fixed_draws(rays: Rays, config: RenderingConfig) -> RayDraws:
    """The middle of every interval: for evaluation, where one input must give one image."""
    shape, multiplier = rays.origins.shape[:2], config.sampling_multiplier
    like = {"device": rays.origins.device, "dtype": rays.origins.dtype}
    count = config.importance_samples * multiplier
    middles = (torch.arange(count, **like) + 0.5) / count
    jitter = torch.full((1, 1, 1), 0.5, **like).expand(*shape, config.samples * multiplier)
    return RayDraws(jitter, middles.expand(*shape, count))


def stratified_depths(jitter: Tensor, near: float, far: float) -> Tensor:
    """Evenly spread depths, each moved by up to one interval. [B, N, S] -> [B, N, S]."""
    count = jitter.shape[-1]
    even = torch.linspace(near, far, count, device=jitter.device, dtype=jitter.dtype)
    return even + jitter * ((far - near) / (count - 1))


def transmittance(density: Tensor, delta: Tensor) -> Tensor:
    """How much light reaches the start of each interval, and the end of the last.

    density, delta: [B, N, K] -> [B, N, K + 1] (NeRF, eq. 3; the small term keeps gradients alive).
    """
    passing = torch.exp(-density * delta) + 1e-10
    return F.pad(torch.cumprod(passing, dim=-1), (1, 0), value=1.0)


def interval_weights(sigma: Tensor, depths: Tensor, density_scale: float = 1) -> Tensor:
    """Weights [B, N, S-1] of the intervals between samples; sigma and depths: [B, N, S]."""
    delta = depths.diff(dim=-1)
    density = density_scale * F.softplus(_middles(sigma) - 1)
    return -torch.expm1(-density * delta) * transmittance(density, delta)[..., :-1]


def importance_depths(depths: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Depths distributed like the (blurred) weights of the first pass, by inverse transform.

    depths: [B, N, S], weights: [B, N, S-1], u: [B, N, S'] in [0, 1) -> [B, N, S']. No gradient.
    The blur is mip-NeRF's; the edges of the distribution lie at the middles between depths.
    """
    with torch.no_grad():
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


def sample_weights(weights: Tensor) -> Tensor:
    """What each sample contributes: half of the interval on either side. [B, N, S-1] -> [B, N, S].

    The color of an interval is the mean of those at its ends.
    """
    return (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0))) / 2


def composite(
    passes: Sequence[FieldSamples],
    depths: Sequence[Tensor],
    *,
    white_background: bool,
    density_scale: float = 1,
) -> Rendering:
    """Blend the samples of all passes into what a ray sees (NeRF, eq. 3, on middles of intervals).

    Of each pass: sigma [B, N, S, 1], color [B, N, S, F], depths [B, N, S]. Only densities are
    brought into the common order along the ray; colors, the bulk of the data, stay where they are
    and are weighted there.
    """
    sorted_depths, order = torch.cat(list(depths), dim=-1).sort(dim=-1)
    sigma = torch.cat([samples.sigma.squeeze(-1) for samples in passes], dim=-1)
    weights = interval_weights(sigma.gather(-1, order), sorted_depths, density_scale)
    sorted_weights = sample_weights(weights)
    own_weights = torch.zeros_like(sorted_weights).scatter(-1, order, sorted_weights)
    own_weights = own_weights.split([part.shape[-1] for part in depths], dim=-1)
    features = sum(
        (share[..., None, :] @ samples.color).squeeze(-2)
        for share, samples in zip(own_weights, passes, strict=True)
    )
    opacity = weights.sum(dim=-1, keepdim=True)
    if white_background:
        features = features + 1 - opacity
    nearest, farthest = sorted_depths.min(), sorted_depths.max()
    total_depth = (weights * _middles(sorted_depths)).sum(dim=-1, keepdim=True)
    seen = opacity > 0
    depth = torch.where(seen, total_depth / torch.where(seen, opacity, 1), farthest)
    return Rendering(features * 2 - 1, depth.clamp(nearest, farthest), opacity)


def render_rays(
    planes: Tensor, decoder: DecoderWeights, rays: Rays, config: RenderingConfig, draws: RayDraws
) -> Rendering:
    """Render rays [B, N, 3] through the field of planes [B, 3, C, H, W]."""

    def field(depths: Tensor) -> FieldSamples:
        points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]
        flat = triplane_render(
            planes,
            points.flatten(1, 2),
            decoder,
            box_warp=config.box_warp,
            axes=config.plane_axes,
        )
        return FieldSamples(*(part.unflatten(1, depths.shape[1:]) for part in flat))

    depths = stratified_depths(draws.jitter, config.near, config.far)
    coarse = field(depths)
    blend = functools.partial(
        composite,
        white_background=config.white_background,
        density_scale=config.density_scale,
    )
    if config.importance_samples == 0:
        return blend([coarse], [depths])
    with torch.no_grad():
        weights = interval_weights(coarse.sigma.squeeze(-1), depths, config.density_scale)
    fine_depths = importance_depths(depths, weights, draws.importance)
    return blend([coarse, field(fine_depths)], [depths, fine_depths])


def _middles(x: Tensor) -> Tensor:
    return (x[..., :-1] + x[..., 1:]) / 2
