"""Photographs to latents and poses, on pictures that a network made itself."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dnnlib import UserError
from tests.helpers import DUAL, small_discriminator, small_generator
from training.files.network_file import load_network
from training.outputs import projection
from training.outputs.latent_files import load_latent, save_latent
from training.outputs.objects import Objects
from training.outputs.projection import ProjectionOptions, project, psnr

FEW = ProjectionOptions(steps=12, perceptual_weight=0)


@pytest.fixture(scope="module")
def generator():
    return small_generator().eval()


@pytest.fixture(scope="module")
def images(generator):
    with torch.no_grad():
        return Objects.from_seeds(generator, range(3)).own_view().image


def test_psnr_is_that_of_a_peak_of_two():
    zero = torch.zeros(2, 3, 4, 4)
    noisy = zero + torch.tensor([0.2, 0.02])[:, None, None, None]
    assert psnr(noisy, zero).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)
    assert psnr(zero + 3, zero + 1).tolist() == [math.inf, math.inf]  # shown as white, as it is


def test_search_comes_closer_and_tells_what_it_found(generator, images):
    discriminator = small_discriminator().eval()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    none = project(generator, discriminator, images, ProjectionOptions(1, perceptual_weight=0))
    found = project(generator, discriminator, images, FEW)
    assert (found.psnr > none.psnr).all()
    assert found.steps == 12 and found.seconds > 0
    torch.testing.assert_close(psnr(found.images, images), found.psnr)
    with torch.no_grad():
        seen = Objects.from_ws(generator, found.objects.ws, found.objects.pose).own_view().image
    torch.testing.assert_close(seen, found.images)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(weight.grad is not None for weight in generator.parameters())


def test_search_starts_at_the_pose_that_the_discriminator_estimates(generator, images):
    discriminator = small_discriminator().eval()
    still = ProjectionOptions(2, pose_rate=0, perceptual_weight=0)
    found = project(generator, discriminator, images, still)
    torch.testing.assert_close(found.objects.pose, discriminator.estimate_pose(images))


def test_without_a_discriminator_the_best_of_several_poses_is_kept(generator):
    """The photographs are of the mean latent, from two of the poses that are tried."""
    generator.mapping.w_avg.copy_(torch.randn(16, generator=torch.Generator().manual_seed(1)))
    ws = generator.mapping.w_avg.expand(2, generator.backbone.synthesis.num_ws, -1)
    pose = generator.pose_from_degrees(torch.tensor([[-40.0, 0.0], [20.0, 0.0]]))
    with torch.no_grad():
        images = Objects.from_ws(generator, ws, pose).own_view().image
    options = ProjectionOptions(4, rate=0, pose_rate=0, perceptual_weight=0)
    found = project(generator, None, images, options)
    generator.mapping.w_avg.zero_()
    torch.testing.assert_close(found.objects.pose, pose)


def test_a_generator_that_is_given_its_poses_is_searched_as_well(images):
    """As EG3D's, whose latents need a camera to be mapped."""
    given = small_generator(camera__poses="dataset").eval()
    found = project(given, None, images[:1], ProjectionOptions(8, perceptual_weight=0))
    assert found.objects.ws.isfinite().all() and found.psnr.isfinite().all()
    assert 8 >= found.steps > 0


def test_photographs_have_no_influence_on_each_other(generator, images):
    together = project(generator, None, images, FEW)
    alone = project(generator, None, images[:1], FEW)
    torch.testing.assert_close(together.objects.ws[:1], alone.objects.ws, atol=1e-3, rtol=1e-2)


def test_several_photographs_become_one_object(generator):
    discriminator = small_discriminator().eval()
    pose = generator.pose_from_degrees(torch.tensor([[-20.0, 0.0], [20.0, 0.0]]))
    with torch.no_grad():
        images = Objects.from_seeds(generator, range(3)).render(pose).image
    none = project(generator, discriminator, images, ProjectionOptions(1, perceptual_weight=0))
    found = project(generator, discriminator, images, FEW)
    assert found.images.shape == images.shape and len(found.objects) == 3
    assert found.psnr.shape == (3, 2) and (found.psnr.mean(1) > none.psnr.mean(1)).all()
    first = found.objects.own_view().image
    torch.testing.assert_close(first, found.images[:, 0])
    with pytest.raises(UserError, match="need a discriminator"):
        project(generator, None, images)


@pytest.mark.parametrize("symmetric", [True, False])
def test_mirror_images_are_searched_for_where_objects_are_symmetric(
    generator, images, monkeypatch, symmetric
):
    """Photographs that are no mirror images of themselves: with one, they are shown less well."""
    monkeypatch.setattr(projection, "_symmetry", lambda *_: 10.0 if symmetric else 0.0)
    discriminator = small_discriminator().eval()
    alone, both = (
        project(
            generator, discriminator, images,
            ProjectionOptions(12, perceptual_weight=0, mirror_weight=weight),
        )
        for weight in (0, 5)
    )  # fmt: skip
    assert both.images.shape == alone.images.shape
    assert torch.equal(both.objects.ws, alone.objects.ws) != symmetric


def test_symmetry_is_that_of_the_network_s_own_objects(monkeypatch):
    """The shipped heads are symmetric; with half of each plane erased, they are not."""
    shipped = load_network(Path(__file__).parents[3] / "models" / "toy.safetensors")
    heads, discriminator = shipped.generator, shipped.discriminator
    assert discriminator is not None
    assert projection._symmetry(heads, discriminator) > projection.SYMMETRIC
    planes = heads.planes
    size = planes(heads.mapping.w_avg.expand(1, heads.backbone.synthesis.num_ws, -1)).shape[-1]
    monkeypatch.setattr(heads, "planes", lambda ws: planes(ws) * (torch.arange(size) < size // 2))
    assert projection._symmetry(heads, discriminator) < projection.SYMMETRIC


def test_search_ends_where_nothing_gets_better(generator, images, monkeypatch):
    monkeypatch.setattr(projection, "PATIENCE", 3)
    stuck = ProjectionOptions(50, rate=0, pose_rate=0, perceptual_weight=0)
    assert project(generator, small_discriminator().eval(), images, stuck).steps == 3


def test_a_tuned_copy_comes_closer_still(images):
    generator, discriminator = small_generator(DUAL).eval(), small_discriminator(DUAL).eval()
    with torch.no_grad():
        images = Objects.from_seeds(generator, [5]).own_view().image * 0.5
    plain = ProjectionOptions(3, perceptual_weight=0)
    found = project(generator, discriminator, images, plain)
    tuned = project(
        generator, discriminator, images, ProjectionOptions(3, tune_steps=8, perceptual_weight=0)
    )
    assert tuned.psnr > found.psnr
    assert found.objects.generator is generator is not tuned.objects.generator
    assert tuned.objects.generator.config == generator.config
    torch.testing.assert_close(tuned.objects.ws, found.objects.ws)


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (3, 32, 32), (0, 3, 32, 32)])
def test_images_of_another_size_are_refused(generator, shape):
    with pytest.raises(UserError, match=r"takes \[N, 3, 32, 32\]"):
        project(generator, None, torch.zeros(shape))


def test_latents_survive_their_file(generator, tmp_path):
    ws, pose = torch.randn(8, 16)[: generator.backbone.synthesis.num_ws], torch.tensor([1.2, 1.5])
    save_latent(tmp_path / "a.npz", ws, pose)
    assert torch.equal(load_latent(tmp_path / "a.npz").ws[0], ws)
    objects = Objects.from_files(generator, [tmp_path / "a.npz"] * 2)
    assert len(objects) == 2 and torch.equal(objects.pose[1], pose)
    np.savez(tmp_path / "b.npz", w=ws[None].numpy())  # as other projectors write it
    assert Objects.from_files(generator, [tmp_path / "b.npz"]).pose[0, 0] == pytest.approx(
        generator.config.camera.mean_h
    )


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"w": np.zeros((6, 16), np.float32)},
        {"w": np.full((1, 6, 16), np.nan)},
        {"w": np.zeros((1, 6, 16)), "pose": np.zeros(3)},
        {"w": np.array("text")},
        {"w": np.array([{}], dtype=object)},
    ],
    ids=str,
)
def test_what_is_no_latent_is_one_line(arrays, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match="is no latent") as caught:
        load_latent(tmp_path / "bad.npz")
    assert "\n" not in str(caught.value)


def test_other_files_and_other_networks_are_refused(generator, tmp_path):
    (tmp_path / "text.npz").write_text("text")
    np.save(tmp_path / "array.npz.npy", np.zeros(3))
    (tmp_path / "array.npz.npy").rename(tmp_path / "array.npz")
    for name in ("text.npz", "array.npz", "nowhere.npz", "."):
        with pytest.raises(UserError):
            load_latent(tmp_path / name)
    save_latent(tmp_path / "other.npz", torch.zeros(3, 16), torch.zeros(2))
    with pytest.raises(UserError, match="of another network"):
        Objects.from_files(generator, [tmp_path / "other.npz"])
