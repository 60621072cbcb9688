"""What metrics get: the right cameras, the right photographs, a scene of known shape."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dnnlib import UserError
from metrics.context import Context
from metrics.registry import compute
from metrics.runner import Runner
from tests.helpers import DUAL, small_discriminator, small_generator, tiny_config, write_photographs
from training.cameras import cam2world_from_pose
from training.data.ground_truth import load_ground_truth
from training.data.toy_heads import RADIUS, toy_cameras
from training.data.toy_set import make_toy_dataset
from training.evaluation.networks import EvaluatedNetwork, object_mask, open_evaluation_data
from training.networks.generator import Generator
from training.outputs.objects import Objects

BALL = 0.25  # radius, world units


def ball_generator(**changes) -> Generator:
    """Planes g(x, y) + g(x, z) + g(z, y) with g(a, b) = 1/2 - a^2 - b^2 make a ball; the color
    varies with x."""
    space = {"rendering__box_warp": 1.0, "rendering__near": 2.25, "rendering__far": 3.3}
    samples = {"rendering__samples": 48, "rendering__importance_samples": 48}
    config = tiny_config(**space, **samples, **changes)
    torch.manual_seed(0)
    generator = Generator(config).eval().requires_grad_(False)
    size = config.generator.plane_resolution
    at = (torch.arange(size) + 0.5) / size - 0.5
    planes = torch.zeros(3, config.generator.plane_channels, size, size)
    planes[:, 0] = 0.5 - at.square() - at.square()[:, None]
    planes[0, 1] = torch.sin(12 * at).expand(size, size)  # along x, on the plane XY
    generator.planes = lambda ws: planes.expand(len(ws), -1, -1, -1, -1)
    hidden, out = generator.decoder.net["0"], generator.decoder.net["2"]
    for layer in (hidden, out):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    # Softplus is the identity far from zero. Mean over planes: (1.5 - 2 r^2) / 3.
    surface = (1.5 - 2 * BALL**2) / 3
    inputs, units = hidden.weight.shape[1], out.weight.shape[1]
    for channel in (0, 1):
        hidden.weight.data[channel, channel] = 10 * math.sqrt(inputs)
        hidden.bias.data[channel] = 30
    out.weight.data[0, 0] = 200 * math.sqrt(units)
    out.bias.data[0] = -200 * (30 + 10 * surface)
    out.weight.data[1:, 1] = 0.5 * math.sqrt(units)
    out.bias.data[1:] = -0.5 * 30
    return generator


def context(model: EvaluatedNetwork) -> Context:
    return Context(model, None, None, None, Runner(torch.device("cpu")), count=8)


def test_a_ball_is_round_and_looks_the_same_from_everywhere():
    model = EvaluatedNetwork(ball_generator(), None, None)
    relief = compute("relief", context(model)).values["relief"]
    assert relief == pytest.approx(1 / math.sqrt(72), rel=0.08)  # at 32 pixels
    found = compute("view_consistency", context(model)).values
    assert found["view_consistency_depth"] < 0.02
    assert found["view_consistency_color"] < 0.15 * found["view_consistency_color_unwarped"]
    assert found["view_consistency_compared"] > 0.6


def test_a_ball_that_is_seen_from_elsewhere_than_said_is_inconsistent(monkeypatch):
    """Cameras reported without the turn: the metric must not trust colors by their place."""
    model = EvaluatedNetwork(ball_generator(), None, None)
    views_of = model.views

    def misreported(indices, yaws):
        views = views_of(indices, yaws)
        return views._replace(cam2world=views.cam2world[:, :1].expand_as(views.cam2world))

    right = compute("view_consistency", context(model)).values
    monkeypatch.setattr(model, "views", misreported)
    wrong = compute("view_consistency", context(model)).values
    assert wrong["view_consistency_color"] > 3 * right["view_consistency_color"]


def test_sample_i_is_the_same_in_any_batch_and_from_its_own_pose():
    generator = small_generator().eval()
    model = EvaluatedNetwork(generator, None, None)
    together, alone = model.sample(range(4)), model.sample(range(2, 3))
    assert torch.allclose(together[2], alone[0], atol=1e-4)
    assert not torch.allclose(together[1], together[2], atol=1e-2)
    views = model.views(range(4), (-30.0, 0.0, 30.0))
    assert torch.allclose(views.image[:, 1], together, atol=1e-4)
    directions = model.directions(range(4))
    assert torch.allclose(directions, -views.cam2world[:, 1, :3, 2], atol=1e-6)


def test_sample_i_is_the_object_of_seed_i():
    generator = small_generator().eval()
    z = torch.from_numpy(np.random.RandomState(3).randn(1, 16)).float()
    with torch.no_grad():
        expected = generator(z, generator.intrinsics.expand(1, 3, 3)).image[:, 0]
    found = EvaluatedNetwork(generator).sample(range(3, 4))
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(Objects.from_seeds(generator, [3]).own_view().image, found, atol=1e-5)


def test_sampling_leaves_the_random_state_alone():
    model = EvaluatedNetwork(small_generator().eval(), None, None)
    before = torch.get_rng_state()
    model.sample(range(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_object_is_what_is_opaque_or_else_the_middle():
    opacity = torch.ones(1, 1, 1, 8, 8)
    opacity[..., :4] = 0.2
    assert torch.equal(object_mask(opacity, stands_alone=True), opacity > 0.5)
    middle = object_mask(torch.ones(1, 1, 1, 64, 64), stands_alone=False)
    assert middle[..., 32, 32] and not middle[..., 32, 10]
    assert middle.float().mean().item() == pytest.approx(math.pi / 16, rel=0.02)


def test_poses_of_photographs_are_estimated_as_in_training():
    """With dual discrimination, beside the photograph resized to the rendering's resolution."""
    generator, discriminator = small_generator(DUAL).eval(), small_discriminator(DUAL).eval()
    images = torch.randint(0, 256, (4, 3, 128, 128), dtype=torch.uint8)
    estimated = EvaluatedNetwork(generator, discriminator, None).estimate_directions(images)
    pixels = images / 127.5 - 1
    raw = torch.nn.functional.interpolate(pixels, size=16, mode="bilinear")
    with torch.no_grad():
        expected = generator.cam2world(discriminator(pixels, raw).pose)
    assert torch.allclose(estimated, -expected[:, :3, 2], atol=1e-6)


def random_labels(count: int) -> Tensor:
    pose = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) + 1
    cam2world = cam2world_from_pose(pose, 2.7, (0.0, 0.0, 0.2)).flatten(1)
    focal = torch.linspace(4, 5, count)[:, None]
    zero, half, one = torch.zeros_like(focal), torch.full_like(focal, 0.5), torch.ones_like(focal)
    rows = [focal, zero, half, zero, focal, half, zero, zero, one]
    return torch.cat([cam2world, *rows], dim=1)


def test_samples_take_intrinsics_from_labels_where_training_did():
    generator, labels = small_generator(), random_labels(30)
    focals = EvaluatedNetwork(generator, None, labels).views(range(6), (0.0,)).intrinsics[:, 0, 0]
    assert len(set(focals.tolist()) & set(labels[:, 16].tolist())) > 3
    preset = small_generator(camera__intrinsics="preset")
    focals = EvaluatedNetwork(preset, None, labels).views(range(6), (0.0,)).intrinsics[:, 0, 0]
    assert set(focals.tolist()) == {preset.intrinsics[0, 0].item()}


def test_a_generator_that_is_given_its_poses_takes_those_of_the_labels():
    generator, labels = small_generator(camera__poses="given").eval(), random_labels(30)
    model = EvaluatedNetwork(generator, None, labels)
    known = {tuple(row) for row in labels[:, :16].tolist()}
    cameras = model.views(range(6), (0.0,)).cam2world.reshape(6, 16).tolist()
    assert all(tuple(row) in known for row in cameras)
    with pytest.raises(UserError, match="no distribution"):
        model.directions(range(2))
    with pytest.raises(UserError, match="camera labels"):
        EvaluatedNetwork(generator, None, None)


def test_truth_comes_from_labels_or_from_the_toy_set(tmp_path: Path):
    photographs = write_photographs(tmp_path / "photographs", count=6)
    data = tiny_config(photographs).data
    assert open_evaluation_data(data, 0).true_directions is None
    labels = random_labels(6)
    names = sorted(path.name for path in photographs.iterdir())
    entries = list(zip(names, labels.tolist(), strict=True))
    (photographs / "dataset.json").write_text(json.dumps({"labels": entries[::-1]}))
    found = open_evaluation_data(data, 0)
    assert torch.allclose(found.labels, labels)
    assert torch.allclose(found.true_directions, -labels[:, [2, 6, 10]])

    make_toy_dataset(tmp_path / "toy.zip", 5, 32, seed=0)
    true = open_evaluation_data(tiny_config(tmp_path / "toy.zip").data, 0).true_directions
    poses = torch.from_numpy(load_ground_truth(tmp_path / "toy.zip").pose)
    origins = toy_cameras(poses)[:, :3, 3]
    assert torch.allclose(true.double(), origins / RADIUS, atol=1e-6)


def test_photographs_come_plain_and_as_training_uses_them(tmp_path: Path):
    photographs = write_photographs(tmp_path / "photographs", count=6)
    data = tiny_config(photographs, data__mirror=True, data__max_images=4).data
    found = open_evaluation_data(data, 0)
    assert len(found.all_images.images) == 6 and len(found.train_images.images) == 8
    assert found.all_images.fingerprint != found.train_images.fingerprint
    again = open_evaluation_data(data.model_copy(update={"mirror": False}), 0)
    assert again.all_images.fingerprint == found.all_images.fingerprint
    assert again.train_images.fingerprint != found.train_images.fingerprint
    other_seed = open_evaluation_data(data, 1)  # draws other images, of the same photographs
    assert other_seed.all_images.fingerprint == found.all_images.fingerprint
    assert other_seed.train_images.fingerprint != found.train_images.fingerprint
