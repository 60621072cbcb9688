"""Poses held to those that D's moving average estimates. Not in the paper.

D learns poses from generated images alone. When objects begin to differ they may turn by
themselves, D follows them, and what turns in photographs is forgotten within some thousand images.
A teacher that follows slowly (Tarvainen and Valpola 2017) holds both sides: D's estimates of
photographs stay what they were, and G's objects stay where the same teacher sees them from their
cameras. Either alone does not (log, entry 64).
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from torch_utils.images import blur
from training.config import Config
from training.networks.discriminator import Discriminator


class Anchor(NamedTuple):
    """What poses are held to.

    average: D's moving average, without gradients. weight: of the distances in both losses, where
    objects differ as they like; times psi where they do not, since cameras alone move then.
    """

    average: Discriminator
    weight: float

    @classmethod
    def of(cls, config: Config, average: Discriminator) -> "Anchor | None":
        """That of a run, if it has one."""
        weight = config.loss.pose_anchor_weight
        return cls(average, weight) if weight else None

    def distance(self, pose: Tensor, image: Tensor, raw: Tensor, sigma: float) -> Tensor:
        """Mean squared error of poses against the average's estimates; a scalar, in radians.

        Args:
            pose: (h, v) [B, 2] in radians.
            image: [B, 3, R, R] in [-1, 1].
            raw: [B, 3, r, r], see `Discriminator.forward`.
            sigma: blur of the image, in pixels, as D itself sees it; augmentation it does not see.
        """
        return F.mse_loss(self.average(blur(image, sigma), raw).pose, pose)
