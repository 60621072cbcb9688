"""The latents that seeds stand for."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dnnlib import LARGEST_SEED, UserError


def latents_of_seeds(seeds: Sequence[int], z_dim: int) -> Tensor:
    """The latents of seeds: seed N is the same object in samples, videos, metrics and pictures.

    Args:
        seeds: whole numbers from 0 to 2^32 - 1.
        z_dim: dimensions of z.

    Returns:
        z, float32 [len(seeds), z_dim], standard normal, in main memory.

    Raises:
        UserError: for a seed out of range.
    """
    z = np.empty((len(seeds), z_dim), dtype=np.float32)
    for row, seed in zip(z, seeds, strict=True):
        if not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"seed {seed}: seeds go from 0 to {LARGEST_SEED}")
        row[:] = np.random.RandomState(seed).randn(z_dim)
    return torch.from_numpy(z)
