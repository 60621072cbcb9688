"""A world of reversed depth gives the same images, but for perspective and what covers what."""

import copy
import math

import pytest
import torch

from tests.helpers import small_config
from training.networks.depth_reversal import reverse_depth
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

CENTER = torch.full((2,), math.pi / 2)


def networks(**changes) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    config = small_config(generator__depth_trial_kimg="1,2", camera__pivot="0,0,0", **changes)
    generator, discriminator = Generator(config), Discriminator(config)
    with torch.no_grad():
        for network in (generator, discriminator):
            for name, parameter in network.named_parameters():
                if name.endswith("bias"):  # zero at first
                    parameter.normal_()
    return generator, discriminator


@pytest.mark.parametrize("axes", ["full", "eg3d"])
@torch.no_grad()
def test_objects_are_reflected_and_cameras_turn_the_other_way(axes):
    generator, discriminator = networks(rendering__plane_axes=axes)
    z, points = torch.randn(4, generator.config.generator.z_dim), torch.rand(4, 50, 3) - 0.5
    before = generator.latent(z)
    field = generator.field(generator.planes(before.ws), points)
    reverse_depth(generator, discriminator)
    after = generator.latent(z)
    torch.testing.assert_close(after.pose, 2 * CENTER - before.pose)
    reflected = points * torch.tensor([1.0, 1.0, -1.0])
    again = generator.field(generator.planes(after.ws), reflected)
    torch.testing.assert_close(again.sigma, field.sigma)
    torch.testing.assert_close(again.color, field.color)


@torch.no_grad()
def test_d_judges_as_before_by_opposite_poses():
    generator, discriminator = networks()
    images, poses = torch.randn(8, 3, 32, 32), CENTER + 0.5 * torch.randn(8, 2)
    before = discriminator(images, condition=poses)
    reverse_depth(generator, discriminator)
    after = discriminator(images, condition=2 * CENTER - poses)
    torch.testing.assert_close(after.score, before.score)
    torch.testing.assert_close(after.pose, 2 * CENTER - before.pose)


@torch.no_grad()
def test_seen_from_afar_images_stay():
    """A thin fog hides nothing, and rays from afar are parallel."""
    far = {"camera__radius": 500.0, "camera__focal": 300.0, "rendering__samples": 60}
    limits = {"rendering__near": 499.0, "rendering__far": 501.0, "rendering__density_scale": 0.05}
    generator, discriminator = networks(**far, **limits)
    z = torch.randn(4, generator.config.generator.z_dim)
    before = generator(z)
    turned = copy.deepcopy(generator)
    turned.backbone.depth_reversed.logical_not_()
    reverse_depth(generator, discriminator)
    spread = before.image.std()
    assert (generator(z).image - before.image).abs().max() < 0.05 * spread
    assert (turned(z).image - before.image).abs().max() > 0.5 * spread, "without turning cameras"


def test_twice_is_once_undone():
    generator, discriminator = networks()
    before = [copy.deepcopy(x.state_dict()) for x in (generator, discriminator)]
    reverse_depth(generator, discriminator)
    reverse_depth(generator, discriminator)
    for old, network in zip(before, (generator, discriminator), strict=True):
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(tensor, old[name])
