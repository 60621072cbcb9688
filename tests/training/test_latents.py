"""The latents that seeds stand for."""

import numpy as np
import pytest
import torch

from dnnlib import SeedList, UserError
from training.latents import latents_of_seeds


def test_a_seed_is_one_latent_wherever_it_is_asked_for():
    z = latents_of_seeds(range(3, 6), 8)
    assert z.dtype == torch.float32 and z.shape == (3, 8)
    expected = np.random.RandomState(4).randn(8).astype(np.float32)
    assert np.array_equal(z[1].numpy(), expected)
    seeds = SeedList().convert("0-4294967295", None, None)
    assert torch.equal(latents_of_seeds(seeds[3:6], 8), z)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_one_line(seed):
    with pytest.raises(UserError, match="seeds go from 0 to 4294967295"):
        latents_of_seeds([seed], 8)
