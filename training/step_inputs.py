"""What the losses of a step take beside the networks, and how its random part is drawn."""

from typing import NamedTuple

import torch
from torch import Tensor

from training.augment import Augment
from training.data.dataset import ImageDataset
from training.feedback import Feedback
from training.networks.generator import Generator


class StepInputs(NamedTuple):
    """Random inputs of one micro-batch of a main phase, beside its poses.

    z: [B, z_dim]. intrinsics: [B, 3, 3] or [3, 3]. mirror: a kind of `cameras.mirror_cam2world`, or
    None for a single view. mixing: a second z and the layer from which it takes over, or None.
    stochastic: depths along rays are random, as in training; False fixes them.
    truncation: psi, pulls w toward its mean.
    """

    z: Tensor
    intrinsics: Tensor
    mirror: str | None
    mixing: tuple[Tensor, int] | None = None
    stochastic: bool = True
    truncation: Tensor | float = 1


class DiscriminatorTransform(NamedTuple):
    """What D's input images pass through: blur of `sigma` pixels, then augmentation, if any.

    Generated images are blurred and their raw renderings are not, as published; the raw images of
    photographs, which are made here, are blurred too.
    """

    sigma: float = 0
    augment: Augment | None = None


class RealBatch(NamedTuple):
    """Photographs [B, 3, R, R] in [-1, 1], and known poses [B, 2] to condition D on, or None."""

    images: Tensor
    condition: Tensor | None = None


def draw_inputs(
    generator: Generator, dataset: ImageDataset, feedback: Feedback, z: Tensor
) -> StepInputs:
    """Draw the other inputs of a micro-batch of latents z [B, z_dim]."""
    config, intrinsics = generator.config, generator.intrinsics
    mirror, mixing = None, None
    known = dataset.all_intrinsics
    if config.camera.intrinsics == "labels" and known is not None:
        chosen = known[torch.randint(len(known), (len(z),))]
        intrinsics = chosen.to(z.device, non_blocking=True)
    if (mirrors := config.camera.mirrors) and generator.pose_source.second_view:
        mirror = mirrors[int(torch.randint(len(mirrors), ()))]
    if config.generator.style_mixing and torch.rand(()) < config.generator.style_mixing:
        start = torch.randint(1, generator.num_object_ws, ())
        mixing = (torch.randn_like(z), int(start))
    return StepInputs(z, intrinsics, mirror, mixing, truncation=feedback.truncation)


def density_points(generator: Generator, batch: int) -> tuple[Tensor, Tensor]:
    """Random points in [-1, 1]^3 and a neighbor of each, [B, N, 3]."""
    loss, device = generator.config.loss, generator.intrinsics.device
    points = torch.rand(batch, loss.density_points, 3, device=device) * 2 - 1
    return points, points + torch.randn_like(points) * loss.density_step
