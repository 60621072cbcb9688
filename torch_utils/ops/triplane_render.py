"""Tri-plane lookup and decoding: from points in space to density and colour.

EG3D (Chan et al. 2022), section 3.2: project a point on three planes, average the features found
there, decode them with a small MLP.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """
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
