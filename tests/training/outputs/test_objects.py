"""Objects: from seeds and latents, seen by cameras."""

import math

import numpy as np
import pytest
import torch

from dnnlib import UserError
from tests.helpers import SIZES
from training.networks.generator import Generator
from training.outputs import objects as module
from training.outputs.objects import Objects, latents_of_seeds
from training.presets import build_config


def make_generator(preset: str = "toy", **changes) -> Generator:
    torch.manual_seed(0)
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return Generator(build_config(preset, SIZES | changes)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return make_generator()


def test_latents_are_numpys_and_of_each_seed_alone():
    z = latents_of_seeds([7, 2**32 - 1, 0], 8)
    assert z.dtype == torch.float32 and z.shape == (3, 8)
    np.testing.assert_allclose(z[0], np.random.RandomState(7).randn(8), rtol=1e-6)
    assert torch.equal(latents_of_seeds(range(7, 8), 8)[0], z[0])


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_seeds_out_of_range_get_one_line(seed, generator):
    with pytest.raises(UserError, match=f"seed {seed}: seeds go from 0 to 4294967295"):
        Objects.from_seeds(generator, [3, seed])


def test_own_view_is_what_the_generator_renders(generator):
    objects = Objects.from_seeds(generator, [3, 5], truncation=0.6, cutoff=3)
    z = latents_of_seeds([3, 5], 8)
    expected = generator(z, truncation=0.6, cutoff=3).select(0)
    for part, whole in zip(objects.own_view(), expected, strict=True):
        torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)


def test_cameras_are_poses_or_matrices_for_all_or_for_each(generator):
    objects = Objects.from_seeds(generator, [0, 1])
    poses = torch.tensor([[1.2, 1.5], [1.8, 1.4], [1.5, 1.7]])
    for_all = objects.render(poses)
    assert for_all.image.shape == (2, 3, 3, 32, 32)
    matrices = generator.cam2world(poses)
    for cameras in (poses.expand(2, 3, 2), matrices, matrices.expand(2, 3, 4, 4)):
        assert torch.equal(objects.render(cameras).image, for_all.image)
    crossed = objects.render(torch.stack([poses, poses.flip(0)]))
    torch.testing.assert_close(crossed.image[1, 0], for_all.image[1, 2], atol=1e-5, rtol=0)


def test_resolution_is_that_of_the_call_and_the_network_stays(generator):
    objects = Objects.from_seeds(generator, [0])
    large = objects.own_view(resolution=64)
    assert large.image.shape == (1, 3, 64, 64) and large.depth.shape == (1, 1, 64, 64)
    halved = torch.nn.functional.avg_pool2d(large.image, 2)
    assert (halved - objects.own_view().image).abs().mean() < 0.1  # the same picture, finer
    assert generator.raw_resolution == 32


def test_resolution_of_a_super_resolved_network_is_that_of_the_rendering():
    generator = make_generator("cats", data__resolution=128, rendering__raw_resolution=16)
    view = Objects.from_seeds(generator, [0]).own_view(resolution=24)
    assert view.raw.shape == (1, 3, 24, 24) and view.image.shape == (1, 3, 128, 128)


def test_large_renderings_come_in_parts_that_change_nothing(generator, monkeypatch):
    objects = Objects.from_seeds(generator, [0, 1, 2])
    lenses = generator.intrinsics.repeat(3, 1, 1)
    lenses[2, :2, :2] *= 2
    whole = objects.own_view(lenses)
    monkeypatch.setattr(module, "POINTS_AT_ONCE", 1)
    for part, expected in zip(objects.own_view(lenses), whole, strict=True):
        torch.testing.assert_close(part, expected, atol=1e-5, rtol=0)


def test_objects_of_a_generator_without_poses_are_conditioned_on_the_front():
    generator = make_generator(camera__poses="given")
    objects = Objects.from_seeds(generator, [6, 7])
    torch.testing.assert_close(objects.pose, torch.full((2, 2), math.pi / 2))
    camera = generator.cam2world(objects.pose[:1])
    label = torch.cat([camera.flatten(), generator.intrinsics.flatten()]).expand(2, 25)
    latent = generator.latent(latents_of_seeds([6, 7], 8), label)
    torch.testing.assert_close(objects.ws, latent.ws)
    other = Objects.from_latents(generator, latents_of_seeds([6, 7], 8), label=label.flip(1))
    assert not torch.equal(other.ws, objects.ws)


def test_ws_and_poses_have_gradients(generator):
    drawn = Objects.from_seeds(generator, [0, 1])
    ws, pose = drawn.ws.clone().requires_grad_(), drawn.pose.clone().requires_grad_()
    Objects.from_ws(generator, ws, pose).own_view().image.square().sum().backward()
    assert ws.grad.abs().sum() > 0 and pose.grad.abs().sum() > 0


def test_split_gives_each_object_alone(generator):
    objects = Objects.from_seeds(generator, [0, 1, 2])
    parts = objects.split()
    assert [len(part) for part in parts] == [1, 1, 1]
    torch.testing.assert_close(
        parts[2].own_view().image[0], objects.own_view().image[2], atol=1e-5, rtol=0
    )
