"""Scores of projections, where the truth is known."""

import json
import math

import pytest
import torch
from click.testing import CliRunner

from metrics.poses import Alignment
from tests.helpers import tiny_config
from training.cameras import orbit
from training.data.dataset import ImageDataset
from training.data.ground_truth import load_ground_truth
from training.data.toy_set import make_toy_dataset
from training.evaluation import projection
from training.files.network_file import save_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.outputs.objects import Objects
from training.outputs.projection import Projection


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.zip"
    make_toy_dataset(path, 4, 32, seed=7)
    return path


@pytest.mark.parametrize("mirrored", [False, True])
def test_objects_turn_as_the_true_world_does(mirrored):
    """In a world that is turned by 50 degrees, and one that is mirrored."""
    torch.manual_seed(0)
    generator = Generator(tiny_config()).eval()
    objects = Objects.from_seeds(generator, range(2))
    turn = orbit(torch.eye(4, dtype=torch.float64)[None], 50, (0, 0, 0))[0, :3, :3]
    matrix = turn @ torch.diag(torch.tensor([-1.0 if mirrored else 1.0, 1, 1])).double()
    found = Projection(objects, torch.zeros(2), torch.zeros(2), 1, 1.0)
    views = projection._turned_views(found, Alignment(matrix, mirrored), 30)
    own = generator.cam2world(objects.pose)
    expected = objects.render(orbit(own, -30 if mirrored else 30, (0, 0, 0))[:, None])
    torch.testing.assert_close(views, expected.image[:, 0].detach(), atol=1e-4, rtol=1e-3)


def test_true_views_are_those_of_the_photographed_heads(toy):
    truth = load_ground_truth(toy)
    cameras = torch.from_numpy(truth.cam2world)
    seen = projection._true_views(truth, cameras, 0, 32)
    photographs = torch.stack([ImageDataset(toy, 32)[i] for i in range(4)])
    assert (seen.int() - photographs.int()).abs().max() <= 1
    aside = projection._true_views(truth, cameras, 30, 32)
    assert (aside.int() - photographs.int()).abs().float().mean() > 5


def test_command_tells_all_scores(toy, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    config = tiny_config()
    save_network(tmp_path / "n.safetensors", Generator(config), Discriminator(config), {})
    arguments = ["--network", tmp_path / "n.safetensors", "--data", toy, "--count", 3, "--steps", 2]
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
