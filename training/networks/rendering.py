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
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torch_utils import ops
from torch_utils.ops import triplane_render
from torch_utils.ops.triplane_render import DecoderWeights, FieldSamples
from training.cameras import Rays
from training.config import RenderingConfig
from training.networks.layers import FullyConnected

LARGE_BATCH = 2**25  # colors and densities of a rendering, 128 MiB


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


def composite(
    passes: Sequence[FieldSamples],
    depths: Sequence[Tensor],
    *,
    white_background: bool,
    density_scale: float = 1,
) -> RenderedRays:
    """Composite the samples of one or two passes; see `torch_utils.ops.rays`.

    Args:
        passes: of each, sigma [B, N, S, 1] before softplus and color [B, N, S, F] in [0, 1].
        depths: of each, [B, N, S] in world units.
        white_background: rays end on white, not on black.
        density_scale: factor of densities.
    """
    features, opacity, total_depth = ops.blend(passes, depths, density_scale=density_scale)
    if white_background:
        features = features + 1 - opacity
    nearest = torch.stack([part.min() for part in depths]).min()
    farthest = torch.stack([part.max() for part in depths]).max()
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
        flat = triplane_render(
            planes,
            ops.points_on_rays(rays.origins, rays.directions, depths),
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
    fine_depths = ops.importance_depths(
        depths,
        coarse.sigma.squeeze(-1),
        sampling.importance,
        density_scale=config.density_scale,
    )
    return blend([coarse, field(fine_depths)], [depths, fine_depths])


def render_objects(
    planes: Tensor,
    decoder: DecoderWeights,
    rays: Rays,
    config: RenderingConfig,
    sampling: RaySampling,
) -> RenderedRays:
    """`render_rays`; for the gradients of a large batch on a CPU, one object after the other.

    Its samples are then computed again in the backward pass instead of kept (Chen et al. 2016): at
    the size of the paper's faces, they and their gradients would be a third of all activations.
    Where a ray hits nothing, its depth is the farthest of its object, not of the batch.
    """
    samples = sampling.stratified.numel() + sampling.importance.numel()
    is_large = samples * len(decoder.b2) >= LARGE_BATCH
    if not (planes.requires_grad and planes.device.type == "cpu" and is_large):
        return render_rays(planes, decoder, rays, config, sampling)
    parts = [
        checkpoint(
            render_rays,
            planes[i : i + 1],
            decoder,
            Rays(*(part[i : i + 1] for part in rays)),
            config,
            RaySampling(*(part[i : i + 1] for part in sampling)),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for i in range(len(planes))
    ]
    return RenderedRays(*(torch.cat(part) for part in zip(*parts, strict=True)))
