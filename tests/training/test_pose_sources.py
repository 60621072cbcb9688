"""Sources of camera poses: what each yields, and that a new one is a matter of one class."""

import math

import pytest
import torch

from dnnlib import UserError
from tests.helpers import small_config, small_generator, tiny_config, write_photographs
from training import pose_sources
from training.cameras import cam2world_from_pose
from training.pose_sources import (
    FromLabels,
    Gaussian,
    Poses,
    PoseSource,
    pose_entropy,
    source,
)
from training.run.loop import open_dataset
from training.step import Trainer


def test_entropy_is_that_of_a_gaussian():
    torch.manual_seed(0)
    factor = torch.tensor([[0.4, 0.1], [0.0, 0.2]]).double()
    poses = torch.randn(200_000, 2).double() @ factor
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(2).double(), factor.T @ factor)
    assert pose_entropy(poses).item() == pytest.approx(gaussian.entropy().item(), abs=0.01)


@torch.no_grad()
def test_gaussian_poses_stay_with_their_latent_and_are_drawn_anew_in_training():
    changes = {"camera__poses": "prior", "camera__prior_std": (0.4, 0.1), "generator__z_dim": 64}
    generator = small_generator(**changes)
    gaussian = generator.pose_source
    assert isinstance(gaussian, Gaussian)
    z = torch.randn(4000, 64)
    poses = generator.latent(z).pose
    assert torch.equal(generator.latent(z[:5]).pose, poses[:5])
    w = generator.mapping(z)
    for found in (poses, gaussian.sample(generator, z, w).pose):
        torch.testing.assert_close(found.std(dim=0), torch.tensor([0.4, 0.1]), atol=0.02, rtol=0)
        torch.testing.assert_close(
            found.mean(dim=0), torch.full([2], math.pi / 2), atol=0.03, rtol=0
        )
        assert found.T.corrcoef()[0, 1].abs() < 0.05
    again = gaussian.sample(generator, z, w).pose
    assert not torch.equal(again, gaussian.sample(generator, z, w).pose)


@torch.no_grad()
def test_poses_of_labels_are_taken_as_they_are_and_fitted_for_later_samples():
    settings = {"camera__poses": "dataset", "generator__z_dim": 64}
    generator = small_generator(**settings)
    labels = generator.pose_source
    assert isinstance(labels, FromLabels)
    known = math.pi / 2 + torch.randn(500, 2) * torch.tensor([0.2, 0.15])
    labels.prepare(cam2world_from_pose(known, 2.7, (0.0, 0.0, 0.0)), "data")
    torch.testing.assert_close(labels.known, known, atol=1e-4, rtol=0)
    z = torch.randn(4000, 64)
    sampled = labels.sample(generator, z, generator.mapping(z))
    assert sampled.condition is sampled.pose
    assert (sampled.pose[:, None] == labels.known).all(dim=-1).any(dim=-1).all()
    indices = torch.tensor([3, 0])
    assert torch.equal(labels.condition_of_images(indices), labels.known[indices])

    loaded = small_generator(seed=1, **settings)
    loaded.load_state_dict(generator.state_dict())
    poses = loaded.latent(z).pose
    torch.testing.assert_close(poses.mean(dim=0), known.mean(dim=0), atol=0.03, rtol=0)
    torch.testing.assert_close(poses.std(dim=0), known.std(dim=0), atol=0.02, rtol=0)


def test_sources_that_cannot_train_say_so():
    for poses, message in (("dataset", "no camera labels"), ("given", "cannot be trained")):
        with pytest.raises(UserError, match=message):
            pose_sources.build(small_config(camera__poses=poses)).prepare(None, "photographs")
    with pytest.raises(UserError, match="unknown source 'guessed'"):
        small_config(camera__poses="guessed")


def test_a_new_source_is_one_class(tmp_path):
    @source("ring")
    class Ring(PoseSource):
        """Cameras on a horizontal ring."""

        def __init__(self, settings, z_dim):
            super().__init__()
            self.mean_h = settings.mean_h

        def of_latent(self, generator, z, w):
            h = self.mean_h + math.pi * torch.erf(z[:, 0])
            return torch.stack([h, torch.full_like(h, math.pi / 2)], dim=1)

        def sample(self, generator, z, w):
            return Poses(self.of_latent(generator, z, w))

    config = tiny_config(write_photographs(tmp_path / "images"), camera__poses="ring")
    trainer = Trainer(config, open_dataset(config), torch.device("cpu"))
    trainer.step()
    stats = trainer.stats.collect()
    assert stats["pose/generated_v"].mean == pytest.approx(math.pi / 2)
    assert stats["pose/generated_h"].std > 0.1
    stepped = trainer.g_optimizer.state  # Adam keeps moments of what had a gradient
    moved = [name for name, p in trainer.generator.named_parameters() if p in stepped]
    assert moved and not any("affine_layer" in name for name in moved)
