"""Scores of toy networks, on a generator and a discriminator that know the truth."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import tiny_config
from training.cameras import (
    cam2world_from_pose,
    orbit,
    pose_from_viewing_direction,
    viewing_directions,
)
from training.data.dataset import ImageDataset
from training.data.ground_truth import load_ground_truth
from training.data.toy_heads import Head, render_head, toy_cameras
from training.data.toy_set import make_toy_dataset
from training.evaluation import ground_truth
from training.evaluation.ground_truth import (
    TURNS,
    ObjectViews,
    compare_turned,
    evaluate,
    nearest_match,
)
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator, Latent, View
from training.pose_sources import Gaussian

COUNT = 48


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "heads.zip"
    make_toy_dataset(path, COUNT, 32, seed=3)
    return path


class Sculptor:
    """Renders true heads, in a world that is turned by `offset` radians."""

    def __init__(self, offset: float):
        self.config, self.offset = tiny_config(), offset
        self.intrinsics, self.raw_resolution = torch.eye(3), 32
        self.pose_source = Gaussian(self.config.camera, 8)
        self.mapping = SimpleNamespace(z_dim=8)

    def latent(self, z: Tensor, label: None, truncation: float, cutoff: None) -> Latent:
        pose = math.pi / 2 + 0.3 * z[:, :2] + torch.tensor([self.offset, 0.0])
        return Latent(z, z[:, None], pose)

    def planes(self, ws: Tensor) -> Tensor:
        return ws[:, 0]

    def cam2world(self, pose: Tensor) -> Tensor:
        return toy_cameras(pose)

    def render(
        self,
        planes: Tensor,
        w: Tensor,
        cam2world: Tensor,
        intrinsics: Tensor,
        resolution: None = None,
    ) -> View:
        images, depths = [], []
        for z, cameras in zip(planes, cam2world, strict=True):
            head = Head.random(np.random.default_rng(int(z[0].abs() * 1e6)))
            view = render_head(head, orbit(cameras, -math.degrees(self.offset), (0, 0, 0)), 32)
            images.append(view.image / 127.5 - 1)
            depths.append(view.depth[:, None].clamp(max=2.7))  # no step where half a pixel is head
        image, depth = torch.stack(images), torch.stack(depths)
        return View(image, image, depth, torch.ones_like(depth))


class Seer:
    """Knows each photograph's pose, in the same turned world."""

    def __init__(self, path, offset: float):
        dataset, poses = ImageDataset(path), load_ground_truth(path).pose
        self.poses = {
            dataset[i].numpy().tobytes(): torch.tensor(pose).float() + torch.tensor([offset, 0.0])
            for i, pose in enumerate(poses)
        }

    def estimate_pose(self, images: Tensor, raw_resolution: int) -> Tensor:
        return torch.stack([self.poses[image.numpy().tobytes()] for image in images])


@pytest.mark.parametrize("offset", [0.0, 0.4])
def test_perfect_networks_score_like_the_data_however_their_world_is_turned(heads, offset):
    scores = evaluate(Sculptor(offset), Seer(heads, offset), heads, COUNT)
    assert scores.yaw_correlation > 0.999 and scores.pitch_correlation > 0.999
    assert scores.silhouette_iou == pytest.approx(scores.silhouette_iou_of_data, abs=0.05)
    assert scores.distance < scores.distance_untrained / 3
    assert scores.turned_iou == pytest.approx(scores.turned_iou_of_data, abs=0.015)
    assert min(scores.turned_iou_of_data) > 0.95
    assert max(scores.turned_depth_error_of_data) < 0.015
    assert scores.turned_depth_error == pytest.approx(scores.turned_depth_error_of_data, abs=0.007)


def test_likeness_tells_a_sunken_face_that_the_silhouette_hides():
    flat = ObjectViews(torch.zeros(2, 1, 4, 4, dtype=torch.bool), torch.full((2, 1, 4, 4), 2.5))
    flat.mask[0, :, 1:3, 1:3] = flat.mask[1] = True  # a small square and a large one
    flat.depth[~flat.mask] = 99.0
    sunken = ObjectViews(flat.mask, flat.depth + torch.tensor([0.1, 0.3])[:, None, None, None])
    found = nearest_match(sunken, flat)
    assert found.iou == (1.0,)
    assert found.depth_error == pytest.approx(((4 * 0.1 + 16 * 0.3) / 20,))


def test_a_world_misjudged_by_its_discriminator_shows_in_the_silhouettes(heads):
    right, wrong = (evaluate(Sculptor(0.0), Seer(heads, x), heads, COUNT) for x in (0.0, 1.2))
    assert min(wrong.turned_iou) < min(right.turned_iou) - 0.02


def test_untrained_networks_score_badly(heads):
    torch.manual_seed(0)
    config = tiny_config()
    scores = evaluate(Generator(config).eval(), Discriminator(config), heads, COUNT)
    assert scores.distance == pytest.approx(scores.distance_untrained, rel=0.1)
    assert max(scores.turned_iou) < 0.8
    assert abs(scores.yaw_correlation) < 0.7


def test_turned_samples_are_seen_from_the_directions_of_the_heads(monkeypatch):
    """Also where the network's cameras look at another point than the origin of its world."""
    monkeypatch.setattr(ground_truth, "HEADS_TURNED", 2)
    monkeypatch.setattr(ground_truth, "SAMPLES_TURNED", 1)
    pivot, rendered = (0.0, 0.0, 0.2), []

    class OffCenter(Sculptor):
        def cam2world(self, pose: Tensor) -> Tensor:
            return cam2world_from_pose(pose, 2.7, pivot)

        def render(self, planes: Tensor, w: Tensor, cam2world: Tensor, *others, **named) -> View:
            rendered.append(cam2world)
            return super().render(planes, w, cam2world, *others, **named)

    generator = OffCenter(0.0)
    generator.config = tiny_config(camera__pivot=pivot)
    truth = torch.tensor([[1.0, 1.2], [2.2, 1.9], [1.5, 2.0], [1.9, 1.3]])
    directions = viewing_directions(toy_cameras(truth))
    estimated = pose_from_viewing_direction(directions, 2.7, pivot, math.pi / 2)
    compare_turned(generator, estimated, truth)
    found = torch.atan2(*viewing_directions(rendered[0][0])[:, ::2].T).rad2deg()
    assert found.tolist() == pytest.approx(TURNS, abs=0.01)
