"""Scores of projections, where the truth is known."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dnnlib import UserError
from metrics.poses import Alignment
from tests.helpers import tiny_config
from training.cameras import orbit
from training.data.toy_set import make_toy_dataset
from training.evaluation import projection
from training.files.network_file import save_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.outputs.objects import Objects


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.zip"
    make_toy_dataset(path, 8, 32, seed=7, progress=False, turns=(0, 30))
    return path


@pytest.mark.parametrize("mirrored", [False, True])
def test_objects_turn_as_the_true_world_does(mirrored):
    """In a world that is turned by 50 degrees, and one that is mirrored."""
    torch.manual_seed(0)
    generator = Generator(tiny_config()).eval()
    objects = Objects.from_seeds(generator, range(2))
    turn = orbit(torch.eye(4, dtype=torch.float64)[None], 50, (0, 0, 0))[0, :3, :3]
    matrix = turn @ torch.diag(torch.tensor([-1.0 if mirrored else 1.0, 1, 1])).double()
    unit = torch.eye(4, dtype=torch.float64)[None]
    turns = torch.stack([orbit(unit, yaw, (0, 0, 0))[0, :3, :3] for yaw in (0, 30)])
    views = projection._turned_views(objects, Alignment(matrix, mirrored), turns.expand(2, 2, 3, 3))
    own = generator.cam2world(objects.pose)
    turned = orbit(own, -30 if mirrored else 30, (0, 0, 0))
    expected = objects.render(torch.stack([own, turned], dim=1))
    torch.testing.assert_close(views, expected.image.detach(), atol=1e-4, rtol=1e-3)


def test_photographs_of_one_identity_are_found_wherever_they_are():
    assert projection._places(np.array([7, 5, 7, 5, 9])).tolist() == [[0, 2], [1, 3]]
    with pytest.raises(UserError, match="one photograph"):
        projection._places(np.array([1, 2, 3]))


def test_command_tells_all_scores(toy, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    config = tiny_config()
    save_network(tmp_path / "n.safetensors", Generator(config), Discriminator(config), {})
    arguments = ["--network", tmp_path / "n.safetensors", "--data", toy, "--count", 4, "--steps", 2]
    done = CliRunner().invoke(projection.main, [str(x) for x in arguments])
    assert done.exit_code == 0, done.output
    scores = json.loads(done.output.splitlines()[-1])
    assert scores.keys() == projection.ProjectionScores.__annotations__.keys()
    assert all(math.isfinite(score) for score in scores.values())
    assert 0 <= scores["pose_error"] <= 180


def test_networks_without_a_discriminator_get_one_line(toy, tmp_path):
    save_network(tmp_path / "n.safetensors", Generator(tiny_config()), None, {})
    arguments = ["--network", str(tmp_path / "n.safetensors"), "--data", str(toy)]
    done = CliRunner().invoke(projection.main, arguments)
    assert done.exit_code == 1 and "no discriminator" in done.output
