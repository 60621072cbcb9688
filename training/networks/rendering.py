"""Volume rendering of a tri-plane field along rays.

Two passes as in NeRF (Mildenhall et al. 2020): stratified samples along each ray, then importance
samples where the first pass found matter. Both take part in the final compositing; each point is
evaluated once.
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
        """Weights and biases as they are applied, for `triplane_render`."""
        hidden, output = getattr(self.net, "0"), getattr(self.net, "2")
        return DecoderWeights(*hidden.effective(), *output.effective())


class RaySampling(NamedTuple):
    """Where the samples of one rendering lie, as numbers in [0, 1).

    stratified: [B, N, S], positions within the intervals of the first pass. importance: [B, N, S'],
    values of the cumulative distribution that the second pass inverts.
    """

    stratified: Tensor
    importance: Tensor


class RenderedRays(NamedTuple):
    """Composited rays.

    features: [B, N, F] in [-1, 1]; depth: [B, N, 1], the distance from the camera in world units;
    opacity: [B, N, 1] in [0, 1], the sum of the weights.
    """

    features: Tensor
    depth: Tensor
    opacity: Tensor


def random_sampling(rays: Rays, config: RenderingConfig) -> RaySampling:
    """Uniform random numbers: for training."""
    shape, device, dtype = rays.origins.shape[:2], rays.origins.device, rays.origins.dtype
    return RaySampling(
        torch.rand(*shape, config.samples, device=device, dtype=dtype),
        torch.rand(*shape, config.importance_samples, device=device, dtype=dtype),
    )


def midpoint_sampling(rays: Rays, config: RenderingConfig) -> RaySampling:
    """The middle of every interval: for evaluation, where one input must give one image.

    `sampling_multiplier` multiplies both numbers of samples.
    """
    shape, device, dtype = rays.origins.shape[:2], rays.origins.device, rays.origins.dtype
    samples = config.samples * config.sampling_multiplier
    importance_samples = config.importance_samples * config.sampling_multiplier
    middles = torch.arange(importance_samples, device=device, dtype=dtype) + 0.5
    return RaySampling(
        torch.full((1, 1, 1), 0.5, device=device, dtype=dtype).expand(*shape, samples),
        (middles / importance_samples).expand(*shape, importance_samples),
    )


def stratified_depths(positions: Tensor, near: float, far: float) -> Tensor:
    """Evenly spread depths, each moved by up to one interval (NeRF, eq. 2).

    positions: [B, N, S] in [0, 1) -> [B, N, S], world units.
    """
    count = positions.shape[-1]
    even = torch.linspace(near, far, count, device=positions.device, dtype=positions.dtype)
    return even + positions * ((far - near) / (count - 1))


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


def importance_depths(depths: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Depths distributed like the (blurred) weights of the first pass, by inverse transform.

    depths: [B, N, S], weights: [B, N, S-1], u: [B, N, S'] in [0, 1) -> [B, N, S']. No gradient.
    The blur is mip-NeRF's (Barron et al. 2021); the edges of the distribution lie at the middles
    between depths.
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
    """Weight of each sample: half of the interval on either side. [B, N, S-1] -> [B, N, S].

    The color of an interval is the mean of those at its ends.
    """
    return (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0))) / 2


def composite(
    passes: Sequence[FieldSamples],
    depths: Sequence[Tensor],
    *,
    white_background: bool,
    density_scale: float = 1,
) -> RenderedRays:
    """Composite the samples of all passes (NeRF, eq. 3, on middles of intervals).

    Only densities are brought into the common order along the ray; colors, the bulk of the data,
    stay where they are and are weighted there.

    Args:
        passes: of each, sigma [B, N, S, 1] before softplus and color [B, N, S, F] in [0, 1].
        depths: of each, [B, N, S] in world units.
        white_background: rays end on white, not on black.
        density_scale: factor of densities.
    """
    sorted_depths, order = torch.cat(list(depths), dim=-1).sort(dim=-1)
    sigma = torch.cat([samples.sigma.squeeze(-1) for samples in passes], dim=-1)
    weights = interval_weights(sigma.gather(-1, order), sorted_depths, density_scale)
    sorted_weights = sample_weights(weights)
    own_weights = torch.zeros_like(sorted_weights).scatter(-1, order, sorted_weights)
    own_weights = own_weights.split([part.shape[-1] for part in depths], dim=-1)
    weighted = [
        (weight[..., None, :] @ samples.color).squeeze(-2)
        for weight, samples in zip(own_weights, passes, strict=True)
    ]
    features = sum(weighted, start=torch.zeros(()))
    opacity = weights.sum(dim=-1, keepdim=True)
    if white_background:
        features = features + 1 - opacity
    nearest, farthest = sorted_depths.min(), sorted_depths.max()
    total_depth = (weights * _middles(sorted_depths)).sum(dim=-1, keepdim=True)
    hit = opacity > 0
    depth = torch.where(hit, total_depth / torch.where(hit, opacity, 1), farthest)
    return RenderedRays(features * 2 - 1, depth.clamp(nearest, farthest), opacity)


def render_rays(
    planes: Tensor,
    decoder: DecoderWeights,
    rays: Rays,
    config: RenderingConfig,
    sampling: RaySampling,
) -> RenderedRays:
    """Hierarchical volume rendering of tri-planes (NeRF, section 5.2; EG3D, section 4.1).

    Args:
        planes: [B, 3, C, H, W].
        decoder: from plane features to density and color.
        rays: [B, N, 3], world units.
        config: range of depths, size of the planes, background; with 0 `importance_samples`, there
            is one pass.
        sampling: which points of the rays are evaluated.
    """

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

    depths = stratified_depths(sampling.stratified, config.near, config.far)
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
    fine_depths = importance_depths(depths, weights, sampling.importance)
    return blend([coarse, field(fine_depths)], [depths, fine_depths])


def _middles(x: Tensor) -> Tensor:
    return (x[..., :-1] + x[..., 1:]) / 2
