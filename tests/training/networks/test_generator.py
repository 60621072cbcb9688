"""The generator's own promises; its numbers are tested against the reference in test_parity."""

import math

import pytest
import torch

from dnnlib import UserError
from tests.helpers import DUAL, small_config, small_generator
from training import cameras
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.pose_sources import Given
from training.presets import build_config


def latents(generator: Generator, count: int = 2, seed: int = 1) -> torch.Tensor:
    z_dim = generator.config.generator.z_dim
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(seed))


def parameter_count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_sizes_of_the_paper():
    config = build_config("ffhq", {"data.resolution": 128})
    with torch.device("meta"):
        assert parameter_count(Generator(config)) / 1e6 == pytest.approx(29.58, abs=0.005)
        assert parameter_count(Discriminator(config)) / 1e6 == pytest.approx(64.32, abs=0.005)


@pytest.mark.parametrize(
    "resolution, raw", [(128, 16), (128, 64), (256, 64), (512, 64), (512, 128)]
)
def test_shapes(resolution, raw):
    changes = {"data__resolution": resolution, "rendering__raw_resolution": raw}
    with torch.device("meta"):
        generator = Generator(small_config(DUAL, **changes))
        view = generator(torch.empty(2, 16))
    assert view.image.shape == (2, 1, 3, resolution, resolution)
    assert view.raw.shape == (2, 1, 3, raw, raw)
    assert view.depth.shape == view.opacity.shape == (2, 1, 1, raw, raw)


def test_without_super_resolution_the_image_is_the_rendering():
    generator = small_generator()
    view = generator(latents(generator))
    assert view.image.shape[-1] == 32
    assert torch.equal(view.image, view.raw)
    assert view.opacity.min() >= 0 and view.opacity.max() <= 1 + 1e-6


@torch.no_grad()
def test_raw_resolution_may_grow():
    generator = small_generator(DUAL)
    generator.raw_resolution = 24
    view = generator(latents(generator))
    assert view.raw.shape[-1] == 24 and view.image.shape[-1] == 128


@pytest.mark.parametrize("sizes", [None, DUAL], ids=["plain", "dual"])
@torch.no_grad()
def test_several_views_at_once_are_each_view_alone(sizes):
    generator = small_generator(sizes) if sizes else small_generator()
    latent = generator.latent(latents(generator))
    planes, ws = generator.planes(latent.ws), latent.ws
    posed = [generator.cam2world(latent.pose)]
    posed += [cameras.mirror_cam2world(posed[0], kind) for kind in ("horizontal", "vertical")]
    together = generator.render(planes, ws, torch.stack(posed, dim=1))
    for i, cam2world in enumerate(posed):
        alone = generator.render(planes, ws, cam2world[:, None])
        for a, b in zip(together.select(i), alone.select(0), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together.image[:, 0], together.image[:, 1], atol=1e-2)


@torch.no_grad()
def test_each_sample_may_have_a_lens_of_its_own():
    generator = small_generator()
    latent = generator.latent(latents(generator))
    planes, ws = generator.planes(latent.ws), latent.ws
    cam2world = generator.cam2world(latent.pose)[:, None]
    lenses = torch.stack([cameras.intrinsics_from_focal(f) for f in (4.2647, 2.0)])
    view = generator.render(planes, ws, cam2world, lenses)
    preset = generator.render(planes, ws, cam2world)
    torch.testing.assert_close(view.image[0], preset.image[0])
    assert not torch.allclose(view.image[1], preset.image[1], atol=1e-2)


@torch.no_grad()
def test_deterministic_by_default():
    generator = small_generator()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(1)
    z = latents(generator)
    assert torch.equal(generator(z).image, generator(z).image)
    assert not torch.equal(generator(z).image, generator(z, noise="none").image)
    assert not torch.equal(generator(z, noise="random").image, generator(z, noise="random").image)
    silent = small_generator(generator__noise=False)
    silent.load_state_dict(generator.state_dict())
    assert torch.equal(silent(z, noise="random").image, generator(z, noise="none").image)

    latent = generator.latent(z)
    planes, cam2world = generator.planes(latent.ws), generator.cam2world(latent.pose)[:, None]
    images = [
        generator.render(planes, latent.ws, cam2world, stochastic=True).image for _ in range(2)
    ]
    assert not torch.equal(*images)


@torch.no_grad()
def test_poses_start_with_the_spread_that_is_asked_for():
    generator = small_generator(camera__init_std=0.25, camera__mean_h=1.0, generator__z_dim=64)
    poses = generator.latent(latents(generator, 2000)).pose
    torch.testing.assert_close(poses.std(dim=0), torch.full([2], 0.25), atol=0.02, rtol=0)
    mean = torch.tensor([1.0, math.pi / 2])
    torch.testing.assert_close(poses.mean(dim=0), mean, atol=0.03, rtol=0)


@torch.no_grad()
def test_two_numbers_spread_the_two_angles():
    generator = small_generator(camera__init_std=(0.4, 0.1), generator__z_dim=64)
    poses = generator.latent(latents(generator, 2000)).pose
    torch.testing.assert_close(poses.std(dim=0), torch.tensor([0.4, 0.1]), atol=0.03, rtol=0)


@torch.no_grad()
def test_poses_are_clamped_to_their_range():
    generator = small_generator(camera__range_h=(1.5, 1.6), camera__range_v=(1.0, 1.1))
    h, v = generator.latent(latents(generator, 200)).pose.unbind(dim=1)
    assert (h.min(), h.max()) == pytest.approx((1.5, 1.6))
    assert (v.min(), v.max()) == pytest.approx((1.0, 1.1))
    free = small_generator().latent(latents(generator, 200)).pose
    assert (free.amax(dim=0) - free.amin(dim=0) > 0.2).all()


@torch.no_grad()
def test_truncation_pulls_the_first_layers_to_the_mean_and_leaves_the_pose():
    generator = small_generator()
    z = latents(generator)
    generator.mapping.update_w_avg(torch.ones(3, 16))
    mean = generator.mapping.w_avg
    torch.testing.assert_close(mean, torch.full([16], 0.002))

    plain = generator.latent(z)
    assert torch.equal(plain.ws, plain.w[:, None].expand_as(plain.ws))
    half = generator.latent(z, truncation=0.5)
    torch.testing.assert_close(half.ws, (plain.ws + mean) / 2)
    cut = generator.latent(z, truncation=0, cutoff=2)
    torch.testing.assert_close(cut.ws[:, :2], mean.expand(2, 2, 16))
    assert torch.equal(cut.ws[:, 2:], plain.ws[:, 2:])
    for truncated in (half, cut):
        assert torch.equal(truncated.pose, plain.pose) and torch.equal(truncated.w, plain.w)


@torch.no_grad()
def test_field_is_what_is_rendered():
    """A dense field shows the mean color of a ray's first two samples, as `field` gives them."""
    generator = small_generator(rendering__importance_samples=0)
    generator.decoder.net["2"].bias[0] = 1e4
    latent = generator.latent(latents(generator))
    planes, cam2world = generator.planes(latent.ws), generator.cam2world(latent.pose)
    view = generator.render(planes, latent.ws, cam2world[:, None])
    rays = cameras.rays_from_cameras(cam2world, generator.intrinsics, 32)
    near, interval = 2.25, (3.3 - 2.25) / 5
    first, second = (
        generator.field(planes, rays.origins + (near + interval * i) * rays.directions).color
        for i in (0.5, 1.5)
    )
    expected = (first + second)[..., :3] - 1
    torch.testing.assert_close(view.raw[:, 0].flatten(2).mT, expected, atol=1e-5, rtol=0)
    assert expected.std() > 1e-3  # there is something to see
    assert torch.equal(view.opacity, torch.ones_like(view.opacity))


@torch.no_grad()
def test_generator_with_a_given_pose():
    generator = small_generator(camera__poses="given")
    label = torch.randn(2, Given.label_dim)
    latent = generator.latent(latents(generator), label)
    assert latent.pose is None
    assert not torch.equal(latent.ws, generator.latent(latents(generator), -label).ws)


def test_a_generator_without_poses_says_what_it_lacks():
    generator = small_generator(camera__poses="given")
    z = latents(generator)
    with pytest.raises(UserError, match="needs labels"):
        generator(z)
    with pytest.raises(UserError, match="no pose head"):
        generator.pose_head(torch.zeros(2, 16))
    with pytest.raises(UserError, match="needs latents"):
        generator.mapping(c=torch.zeros(2, 25))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_changes_images_little_and_in_fp16_super_resolution_alone(dtype):
    generator = small_generator(DUAL)
    z = latents(generator)
    with torch.no_grad():
        full = generator(z)
        generator.set_inner_dtype(dtype)
        mixed = generator(z)
    assert {part.dtype for part in mixed} == {torch.float32}
    assert torch.equal(full.raw, mixed.raw) == (dtype == torch.float16)
    assert not torch.equal(full.image, mixed.image)
    torch.testing.assert_close(full.image, mixed.image, atol=0.1, rtol=0.1)
