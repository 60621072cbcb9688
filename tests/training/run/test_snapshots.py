"""Pictures of a snapshot show the networks, and making them changes nothing."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import SIZES
from torch_utils.images import to_uint8
from training.config import Config
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import build_config
from training.run.snapshots import snapshot_pictures

NETWORKS = (Generator, Discriminator)


def small_config(preset: str = "toy", **changes) -> Config:
    return build_config(preset, SIZES | changes)


def pixels(picture: Image.Image) -> torch.Tensor:
    """uint8 [3, H, W]"""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def snapshot(config: Config, count: int = 5):
    torch.manual_seed(3)
    generator, discriminator = Generator(config), Discriminator(config)
    z = torch.randn(count, 8)
    size = config.data.resolution
    reals = torch.rand(6, 3, size, size) * 2 - 1
    pictures = snapshot_pictures(generator, discriminator, z, None, reals)
    return pictures, generator, discriminator, z, reals


def test_snapshot_shows_what_the_generator_renders():
    pictures, generator, _, z, _ = snapshot(small_config())
    # No raw: it would be the image again.
    assert pictures.keys() == {"fakes", "depth", "normals", "yaws", "poses"}
    with torch.no_grad():
        own = generator(z)
        latent = generator.latent(z)
        pose = torch.tensor([[math.pi / 2 + math.radians(20), math.pi / 2]])
        cameras = generator.cam2world(pose.expand(5, 2))[:, None]
        turned = generator.render(generator.planes(latent.ws), latent.ws, cameras)
    fakes, yaws = pixels(pictures["fakes"]), pixels(pictures["yaws"])
    assert fakes.shape == (3, 64, 96) and yaws.shape == (3, 5 * 32, 5 * 32)
    close = {"atol": 1, "rtol": 0}
    torch.testing.assert_close(fakes[:, 32:, 32:64], to_uint8(own.image[4, 0]), **close)
    torch.testing.assert_close(yaws[:, 64:96, 96:128], to_uint8(turned.image[2, 0]), **close)


@pytest.mark.parametrize("background", [False, True])
def test_objects_are_as_different_as_in_training(background):
    """At psi 0 they are the same; what is behind them never is."""
    torch.manual_seed(3)
    changes = {"generator.background": background, "rendering.white_background": not background}
    generator, discriminator = (network(small_config(**changes)) for network in NETWORKS)
    arguments = (torch.randn(4, 8), None, torch.zeros(3, 3, 32, 32))

    def are_alike(psi: float) -> bool:
        yaws = snapshot_pictures(generator, discriminator, *arguments, truncation=psi)["yaws"]
        first, *others = pixels(yaws).int().unflatten(1, (4, 32)).unbind(1)  # a row for each
        return all((row - first).abs().max() <= 1 for row in others)

    assert not are_alike(1)
    assert are_alike(0) != background


def test_snapshot_of_a_super_resolved_network_has_raw_pictures():
    config = small_config("cats", **{"data.resolution": 128, "rendering.raw_resolution": 16})
    pictures = snapshot(config, count=2)[0]
    assert pictures["fakes"].size == (256, 128) and pictures["raw"].size == (32, 16)


def test_intrinsics_of_each_face_are_used():
    pictures, generator, discriminator, z, reals = snapshot(small_config())
    lenses = generator.intrinsics.repeat(5, 1, 1)
    lenses[1, :2, :2] *= 3
    changed = snapshot_pictures(generator, discriminator, z, lenses, reals)
    before, after = pixels(pictures["yaws"]), pixels(changed["yaws"])
    assert torch.equal(before[:, :32], after[:, :32])
    assert not torch.equal(before[:, 32:64], after[:, 32:64])


def test_snapshot_changes_neither_networks_nor_random_states():
    config = small_config()
    generator, discriminator = Generator(config).train(), Discriminator(config).eval()
    generator.raw_resolution = 16
    arguments = (torch.randn(5, 8), None, torch.zeros(3, 3, 32, 32))
    state = copy.deepcopy((generator.state_dict(), discriminator.state_dict()))
    randomness = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def make() -> list[bytes]:
        pictures = snapshot_pictures(generator, discriminator, *arguments)
        return [picture.tobytes() for picture in pictures.values()]

    first = make()
    assert torch.equal(torch.get_rng_state(), randomness[0])
    assert np.array_equal(np.random.get_state()[1], randomness[1][1])
    assert random.getstate() == randomness[2]
    for network, before in zip((generator, discriminator), state, strict=True):
        after = network.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert all(parameter.grad is None for parameter in network.parameters())
    assert generator.training and not discriminator.training and generator.raw_resolution == 16
    torch.manual_seed(99)
    assert make() == first and len(first) == 5


def test_pictures_can_be_finer_than_the_network_was_trained_at():
    torch.manual_seed(3)
    config = small_config()
    generator, discriminator = Generator(config), Discriminator(config)
    arguments = (torch.randn(2, 8), None, torch.zeros(3, 3, 32, 32))
    pictures = snapshot_pictures(generator, discriminator, *arguments, resolution=48)
    assert pictures["fakes"].size == (96, 48) and pictures["yaws"].size == (5 * 48, 96)
