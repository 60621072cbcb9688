"""Pictures of a snapshot show the networks, and making them changes nothing."""

import copy
import math
import random

import numpy as np
import torch
from PIL import Image

from tests.helpers import SIZES
from training.config import Config
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import build_config
from training.run.snapshots import save_snapshot_pictures, snapshot_pictures


def small_config(preset: str = "toy", **changes) -> Config:
    return build_config(preset, SIZES | changes)


def read(path) -> torch.Tensor:
    """uint8 [3, H, W]"""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def levels(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to 0 .. 255."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte()


def snapshot(folder, config: Config, count: int = 5, tag: str = "7"):
    folder.mkdir()
    torch.manual_seed(3)
    generator, discriminator = Generator(config), Discriminator(config)
    z = torch.randn(count, 8)
    size = config.data.resolution
    reals = torch.rand(6, 3, size, size) * 2 - 1
    save_snapshot_pictures(folder, tag, generator, discriminator, z, None, reals)
    return generator, discriminator, z, reals


def test_snapshot_shows_what_the_generator_renders(tmp_path):
    generator, _, z, _ = snapshot(tmp_path / "run", small_config())
    names = {path.name for path in (tmp_path / "run").iterdir()}
    kinds = ("fakes", "depth", "normals", "yaws", "poses")
    assert names == {f"{kind}-7.png" for kind in kinds}  # no raw: it would be the image again
    with torch.no_grad():
        own = generator(z)
        latent = generator.latent(z)
        pose = torch.tensor([[math.pi / 2 + math.radians(20), math.pi / 2]])
        cameras = generator.cam2world(pose.expand(5, 2))[:, None]
        turned = generator.render(generator.planes(latent.ws), latent.ws[:, -1], cameras)
    fakes, yaws = read(tmp_path / "run/fakes-7.png"), read(tmp_path / "run/yaws-7.png")
    assert fakes.shape == (3, 64, 96) and yaws.shape == (3, 5 * 32, 5 * 32)
    close = {"atol": 1, "rtol": 0}
    torch.testing.assert_close(fakes[:, 32:, 32:64], levels(own.image[4, 0]), **close)
    torch.testing.assert_close(yaws[:, 64:96, 96:128], levels(turned.image[2, 0]), **close)


def test_snapshot_of_a_super_resolved_network_has_raw_pictures(tmp_path):
    config = small_config("cats", **{"data.resolution": 128, "rendering.raw_resolution": 16})
    snapshot(tmp_path / "run", config, count=2)
    assert read(tmp_path / "run/fakes-7.png").shape == (3, 128, 256)
    assert read(tmp_path / "run/raw-7.png").shape == (3, 16, 32)


def test_intrinsics_of_each_face_are_used(tmp_path):
    config = small_config()
    generator, discriminator, z, reals = snapshot(tmp_path / "run", config)
    lenses = generator.intrinsics.repeat(5, 1, 1)
    lenses[1, :2, :2] *= 3
    save_snapshot_pictures(tmp_path / "run", "8", generator, discriminator, z, lenses, reals)
    before, after = read(tmp_path / "run/yaws-7.png"), read(tmp_path / "run/yaws-8.png")
    assert torch.equal(before[:, :32], after[:, :32])
    assert not torch.equal(before[:, 32:64], after[:, 32:64])


def test_snapshot_changes_neither_networks_nor_random_states(tmp_path):
    (tmp_path / "run").mkdir()
    config = small_config()
    generator, discriminator = Generator(config).train(), Discriminator(config).eval()
    generator.raw_resolution = 16
    arguments = (torch.randn(5, 8), None, torch.zeros(3, 3, 32, 32))
    state = copy.deepcopy((generator.state_dict(), discriminator.state_dict()))
    randomness = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def make(tag: str) -> list[bytes]:
        save_snapshot_pictures(tmp_path / "run", tag, generator, discriminator, *arguments)
        return [path.read_bytes() for path in sorted((tmp_path / "run").glob(f"*-{tag}.png"))]

    first = make("1")
    assert torch.equal(torch.get_rng_state(), randomness[0])
    assert np.array_equal(np.random.get_state()[1], randomness[1][1])
    assert random.getstate() == randomness[2]
    for network, before in zip((generator, discriminator), state, strict=True):
        after = network.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert all(parameter.grad is None for parameter in network.parameters())
    assert generator.training and not discriminator.training and generator.raw_resolution == 16
    torch.manual_seed(99)
    assert make("2") == first and len(first) == 5


def test_pictures_can_be_finer_than_the_network_was_trained_at():
    torch.manual_seed(3)
    config = small_config()
    generator, discriminator = Generator(config), Discriminator(config)
    arguments = (torch.randn(2, 8), None, torch.zeros(3, 3, 32, 32))
    pictures = snapshot_pictures(generator, discriminator, *arguments, resolution=48)
    assert pictures["fakes"].size == (96, 48) and pictures["yaws"].size == (5 * 48, 96)
