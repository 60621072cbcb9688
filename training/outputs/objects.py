"""The objects of a trained generator, by seed."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.networks.generator import Generator


class Objects(NamedTuple):
    """The objects of B seeds. w: [B, w_dim], the last layer's; planes: [B, 3, C, H, W];
    pose: [B, 2], (h, v) in radians, from which each is seen unless told otherwise."""

    w: Tensor
    planes: Tensor
    pose: Tensor


def objects_of_seeds(
    generator: Generator, seeds: list[int], truncation: float, cutoff: int
) -> Objects:
    """Each seed's object depends on nothing but the seed, up to rounding."""
    noise = [np.random.RandomState(seed).randn(generator.mapping.z_dim) for seed in seeds]
    z = torch.from_numpy(np.stack(noise)).to(generator.intrinsics)
    if generator.pose_source.label_dim:
        pose = z.new_tensor([[generator.config.camera.mean_h, math.pi / 2]])
        label = torch.cat([generator.cam2world(pose).flatten(), generator.intrinsics.flatten()])
        label, pose = label.expand(len(z), -1), pose.expand(len(z), -1)
        latent = generator.latent(z, label, truncation=truncation, cutoff=cutoff)
    else:
        latent = generator.latent(z, truncation=truncation, cutoff=cutoff)
        pose = latent.pose
    return Objects(latent.ws[:, -1], generator.planes(latent.ws), pose)
