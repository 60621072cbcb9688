"""The level at which a surface looks like the rendering of its field.

Along a ray that misses the surface of a level, densities stay below it; so the largest density of
each ray says in which meshes' silhouettes its pixel lies, for all levels at once. The best level is
the one whose silhouettes agree best with the rendered opacity, as intersection over union; of those
that agree almost as well, the highest, since colors of the rendering come from within the matter.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_utils.ops.rays import interval_weights
from training.cameras import rays_from_cameras
from training.networks.generator import Generator
from training.outputs.meshes import point_field

DIRECTIONS = ((0.0, 0.0), (-40.0, 0.0), (40.0, 0.0), (0.0, 20.0), (0.0, -20.0))  # yaw and pitch
PIXELS = 48  # a side of each view
SAMPLES = 64  # of a ray
TOLERANCE = 0.005  # of the agreement


class SilhouetteLevel(NamedTuple):
    """A level of density, and how well the silhouettes of its surface agree with the renderings.

    level: density before the renderer's softplus. The agreement with the rendered opacity is an
    intersection over union, in [0, 1].
    """

    level: float
    agreement: float


@torch.no_grad()
def silhouette_level(generator: Generator, planes: Tensor) -> SilhouetteLevel:
    """The level at which one object's silhouettes agree best with its opacity, from five sides.

    planes: [1, 3, C, H, W].
    """
    rendering = generator.config.rendering
    pose = generator.pose_from_degrees(torch.tensor(DIRECTIONS).to(planes))
    rays = rays_from_cameras(generator.cam2world(pose), generator.intrinsics, PIXELS)
    depths = torch.linspace(rendering.near, rendering.far, SAMPLES).to(planes)
    points = rays.origins[:, :, None] + depths[:, None] * rays.directions[:, :, None]
    # The planes are zero outside of their cube, and meshes end there.
    inside = (points.abs() <= rendering.box_warp / 2).all(dim=-1).cpu()
    sigma = point_field(generator, planes, colors=0)(points.reshape(-1, 3)).sigma
    sigma = sigma.reshape(points.shape[:-1])
    weights = interval_weights(sigma, depths.cpu().expand_as(sigma), rendering.density_scale)
    largest = sigma.masked_fill(~inside, -torch.inf).amax(dim=-1)
    return best_level(largest.flatten(), weights.sum(dim=-1).flatten())


def best_level(largest: Tensor, opacity: Tensor) -> SilhouetteLevel:
    """The level that parts pixels best into those that matter covers and others.

    Args:
        largest: [N], the largest density along each pixel's ray; -inf where it meets no matter.
        opacity: [N] in [0, 1].
    """
    order = largest.argsort(descending=True)
    largest, opacity = largest[order], opacity[order]
    covered = torch.arange(1, len(largest) + 1)  # pixels of the silhouette
    common = opacity.cumsum(dim=0)  # pixel by pixel min(silhouette, opacity)
    agreement = common / (covered + opacity.sum() - common).clamp(min=1e-12)
    # No level parts equal densities, and none lies between matter and nothing.
    below = largest[1:].masked_fill(largest[1:].isinf(), largest[largest.isfinite()].min() - 1)
    agreement = torch.where(largest[:-1] > below, agreement[:-1], 0)
    best = int((agreement >= agreement.max() - TOLERANCE).nonzero()[0])
    level = (largest[best] + below[best]) / 2
    return SilhouetteLevel(level.item(), agreement[best].item())
