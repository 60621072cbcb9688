"""GeoD: an inverse renderer learns from photographs, and supervises the generator's geometry.

Shi et al., "Improving 3D-aware Image Synthesis with A Geometry-aware Discriminator" (NeurIPS 2022):
the normals of the generator's depth should be those that the inverse renderer finds in its image.
The inverse renderer learns as in Unsup3D (Wu et al., CVPR 2020). Losses and schedules are pure
functions: tensors in, tensors out.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.images import resize
from training.cameras import rays_from_cameras
from training.config import GeodConfig
from training.losses import Phase
from training.networks.generator import View
from training.networks.image_formation import SIZE, Frustum, surface_normals
from training.networks.inverse_renderer import Confidence, Decomposition, InverseRenderer

# Images [N, 3, 64, 64] in [-1, 1] -> [N, C, 16, 16].
Features = Callable[[Tensor], Tensor]

_SIGMA_EPS = 1e-7


# --- How the inverse renderer learns


def inverse_renderer_main(
    network: InverseRenderer, features: Features, photographs: Tensor, geod: GeodConfig
) -> Phase:
    """Explain photographs [B, 3, R, R] in [-1, 1], each by an object and by its mirror image."""
    image = resize(photographs, SIZE)
    confidence = network.confidence(image) if geod.confidence else None
    terms = decomposition_terms(
        network(image), image, features, network.frustum, confidence=confidence
    )
    return Phase(terms.total(geod), terms.detached())


class DecompositionTerms(NamedTuple):
    """Scalars, unweighted. photometric, perceptual: of the object, and of its mirror image."""

    photometric: tuple[Tensor, Tensor]
    perceptual: tuple[Tensor, Tensor]
    smoothness: Tensor

    def total(self, geod: GeodConfig) -> Tensor:
        """Wu et al. 2020, equations 4 and 7, and smoothness."""
        (own, mirrored), (own_features, mirrored_features) = self.photometric, self.perceptual
        return (
            own
            + geod.mirror_weight * mirrored
            + geod.perceptual_weight * (own_features + geod.mirror_weight * mirrored_features)
            + geod.smoothness_weight * self.smoothness
        )

    def detached(self) -> dict[str, Tensor]:
        """Values for the log."""
        named = {"IR/smoothness": self.smoothness}
        for name, pair in (("photometric", self.photometric), ("perceptual", self.perceptual)):
            named |= {f"IR/{name}": pair[0], f"IR/{name}_mirrored": pair[1]}
        return {name: value.detach() for name, value in named.items()}


def decomposition_terms(
    parts: Decomposition,
    image: Tensor,
    features: Features,
    frustum: Frustum,
    *,
    confidence: Confidence | None,
) -> DecompositionTerms:
    """How well parts [2B] explain images [B, 3, 64, 64].

    Both objects are compared with the same image, not with its mirror image. confidence: None for
    plain errors.
    """
    with torch.no_grad():
        wanted = features(image)
    mask = parts.geometry.mask
    photometric, perceptual = [], []
    halves = zip(
        parts.reconstruction.chunk(2), features(parts.reconstruction).chunk(2), strict=True
    )
    for channel, (reconstruction, found) in enumerate(halves):
        pixels, blocks = (
            (None, None) if confidence is None else (c[:, channel, None] for c in confidence)
        )
        photometric.append(photometric_loss(reconstruction, image, mask, pixels))
        perceptual.append(perceptual_loss(found, wanted, mask, blocks))
    return DecompositionTerms(
        (photometric[0], photometric[1]),
        (perceptual[0], perceptual[1]),
        smoothness_loss(parts.geometry.canonical_depth, frustum),
    )


def photometric_loss(
    reconstruction: Tensor, image: Tensor, mask: Tensor, sigma: Tensor | None
) -> Tensor:
    """Negative log-likelihood of errors with a Laplace distribution (Wu et al. 2020, equation 3).

    reconstruction, image: [B, C, H, W]. mask: [B, 1, H, W]. sigma: its spread [B, 1, H, W]; None:
    the plain L1 error.
    """
    error = (reconstruction - image).abs()
    if sigma is not None:
        error = math.sqrt(2) * error / (sigma + _SIGMA_EPS) + (sigma + _SIGMA_EPS).log()
    return masked_mean(error, mask)


def perceptual_loss(found: Tensor, wanted: Tensor, mask: Tensor, sigma: Tensor | None) -> Tensor:
    """The same with a normal distribution, of features [B, C, h, w] (Wu et al. 2020, equation 7).

    mask: [B, 1, H, W], averaged to the features' size. sigma: [B, 1, h, w], None: squared errors.
    """
    error = (found - wanted).square()
    if sigma is not None:
        error = error / (2 * sigma.square() + _SIGMA_EPS) + (sigma + _SIGMA_EPS).log()
    return masked_mean(error, F.avg_pool2d(mask, mask.shape[-1] // found.shape[-1]))


def smoothness_loss(depth: Tensor, frustum: Frustum) -> Tensor:
    """Mean steps between neighbors of depth [B, H, W], as a share of the frustum's depth."""
    rows, columns = depth.diff(dim=1).abs().mean(), depth.diff(dim=2).abs().mean()
    return (rows + columns) / (frustum.far - frustum.near)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values [B, C, H, W] where the mask [B, 1, H, W] is 1; 0 if it is empty."""
    weight = mask.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)


def optimizer_of(network: InverseRenderer, geod: GeodConfig) -> torch.optim.Adam:
    """Weight decay is L2 in the gradient, of normalization layers too, as published."""
    return torch.optim.Adam(network.parameters(), lr=geod.lr, weight_decay=geod.weight_decay)


# --- How the generator is told


def normal_consistency(
    network: InverseRenderer, depth: Tensor, image: Tensor, intrinsics: Tensor, geod: GeodConfig
) -> Tensor:
    """How far normals of the generator's depth are from those of its image, a scalar.

    depth: [B, 1, r, r], distance along the rays of cameras with `intrinsics` [B, 3, 3] or [3, 3].
    image: [B, 3, R, R] in [-1, 1], as generated: neither blurred nor augmented. Both are of the
    generator's own view: the inverse renderer is not told the pose, so none is needed here.
    Gradients reach the image too, unless `geod.detach_target`.
    """
    normal = normals_of_depth(depth, network.frustum, intrinsics if geod.axial_depth else None)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not geod.detach_target):
        target = network.geometry(resize(image, SIZE))
    mask = erode(target.mask) if geod.erode_mask else target.mask
    return normal_loss(normal, target.normal.chunk(2)[0], mask[:, 0])


def generator_geometry(
    network: InverseRenderer, view: View, intrinsics: Tensor, geod: GeodConfig, weight: float
) -> Phase:
    """`normal_consistency` of one view of each object, weighted; the log has it unweighted."""
    loss = normal_consistency(network, view.depth, view.image, intrinsics, geod)
    return Phase(weight * loss, {"G/normal_loss": loss.detach()})


def normals_of_depth(depth: Tensor, frustum: Frustum, intrinsics: Tensor | None = None) -> Tensor:
    """Normals [B, 64, 64, 3] of depth images [B, 1, r, r], as `surface_normals` has them.

    intrinsics: [B, 3, 3] or [3, 3] of cameras along whose rays the distances are; None: they are
    taken for depths.
    """
    if intrinsics is not None:
        depth = depth * forward_components(depth, intrinsics)
    return surface_normals(frustum.points(resize(depth, SIZE)[:, 0]))


def normal_loss(normal: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask [B, H, W] of sum |normal - target|, both [B, H, W, 3].

    Places without a normal, (0, 0, 0), do not count.
    """
    weight = mask * (normal.detach() != 0).any(dim=-1)
    difference = (normal - target).abs().sum(dim=-1)
    return (difference * weight).sum() / weight.sum().clamp(min=1)


def erode(mask: Tensor) -> Tensor:
    """The mask [B, 1, H, W] without the pixels that touch empty ones, at corners too."""
    return 1 - F.max_pool2d(1 - mask, kernel_size=3, stride=1, padding=1)


def forward_components(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """[B or 1, 1, r, r]: what a step of length 1 along a pixel's ray adds to the depth."""
    intrinsics = intrinsics.reshape(-1, 3, 3)
    here = torch.eye(4, dtype=depth.dtype, device=depth.device).expand(len(intrinsics), 4, 4)
    size = depth.shape[-1]
    return rays_from_cameras(here, intrinsics, size).directions[..., 2].reshape(-1, 1, size, size)


# --- When


def normal_weight(geod: GeodConfig, images: int, step: int) -> float:
    """The normal loss's weight after so many images, in the step of that index; 0: leave it out."""
    kimg = images / 1000
    if not geod.start_kimg < kimg < geod.stop_kimg:
        return 0.0
    if kimg > geod.interval_from_kimg and step % geod.interval:
        return 0.0
    span = geod.end_kimg - geod.start_kimg
    progress = min((kimg - geod.start_kimg) / span, 1.0) if span else 1.0
    return geod.weight_start + (geod.weight_end - geod.weight_start) * progress


def is_trained(geod: GeodConfig, images: int) -> bool:
    """Whether the inverse renderer takes a step after so many images."""
    return geod.active and not geod.pretrained and images <= 1000 * geod.train_until_kimg
