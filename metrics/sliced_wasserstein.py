"""Sliced Wasserstein distance between two sets of images (Rabin et al. 2011)."""

import torch
from torch import Tensor


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 512, seed: int = 0) -> float:
    """Mean over random directions of the 1-Wasserstein distance between projected pixels.

    a, b: [N, ...] of equal shape, N samples each. Directions are unit vectors of pixel space, so
    the distance is in units of the pixels' own values.
    """
    if a.shape != b.shape:
        raise ValueError(f"the two sets must have one shape, not {list(a.shape)}, {list(b.shape)}")
    a, b = a.flatten(1).double(), b.flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(a.shape[1], projections, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions, dim=0)
    sorted_a, sorted_b = ((x.cpu() @ directions).sort(dim=0).values for x in (a, b))
    return (sorted_a - sorted_b).abs().mean().item()
