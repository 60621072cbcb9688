"""Scores of an inverse renderer, on one that knows the truth and on altered shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from dnnlib import UserError
from tests.helpers import tiny_config
from training.data.ground_truth import load_ground_truth
from training.data.toy_set import make_toy_dataset
from training.evaluation import inverse_rendering
from training.evaluation.inverse_rendering import depth_error, evaluate, normal_error, true_depth
from training.files.network_file import save_network
from training.networks.generator import Generator
from training.networks.image_formation import Frustum, surface_normals
from training.networks.inverse_renderer import Geometry, InverseRenderer

COUNT = 6


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "heads.zip"
    make_toy_dataset(path, COUNT, 32, seed=3)
    return path


class Seer(nn.Module):
    """Knows the depths of the photographs that it is shown, in this order; in its own scale."""

    def __init__(self, depth: Tensor):
        super().__init__()
        self.frustum, self.depth = Frustum(2.35, 3.05), nn.Parameter(depth)

    def geometry(self, image: Tensor) -> Geometry:
        normal = surface_normals(self.frustum.points(self.depth))
        nothing = image.new_zeros(len(image))
        return Geometry(nothing, nothing, 3 * self.depth - 4, normal, nothing)


def shown_depth(heads: Path) -> Tensor:
    chosen = np.random.default_rng(0).permutation(COUNT)
    return true_depth(load_ground_truth(heads), chosen)[1]


def test_who_knows_the_truth_has_no_error_and_guesses_have(heads):
    scores = evaluate(Seer(shown_depth(heads)), heads, COUNT)
    own = scores.pop("inverse renderer")
    assert own.depth < 1e-4 and own.normal < 0.1
    assert all(guess.depth > 0.01 and guess.normal > 5 for guess in scores.values())
    facing, best = scores["facing plane"], scores["best plane"]
    assert best.depth < facing.depth
    assert 0.03 < facing.depth < 0.1  # the root mean square of depth itself, of heads 0.4 deep


def test_a_hollow_is_no_head(heads):
    """A scale below 0 would turn it inside out."""
    depth = shown_depth(heads)
    scores = evaluate(Seer(5.6 - depth), heads, COUNT)
    assert scores["inverse renderer"].depth == pytest.approx(scores["facing plane"].depth)
    assert scores["inverse renderer"].normal > scores["facing plane"].normal


def test_edges_count_for_depth_alone():
    depth, mask = torch.rand(1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 20:40, 20:40] = True
    altered = depth.clone()
    altered[:, 20] += 1
    normal = torch.tensor([0.0, 0.0, 1.0]).expand(1, 64, 64, 3).clone()
    turned = normal.clone()
    turned[:, 20] = torch.tensor([0.0, 1.0, 0.0])
    assert depth_error(altered, depth, mask) > 0.01
    assert normal_error(turned, normal, mask) == pytest.approx(0)
    turned[:, 30] = torch.tensor([0.0, 1.0, 0.0])
    assert normal_error(turned, normal, mask) == pytest.approx(90 / 18)


def test_other_truths_are_refused(heads):
    known = load_ground_truth(heads)
    with pytest.raises(UserError, match="no toy set"):
        true_depth(known._replace(identity=known.identity + 1), np.arange(2))


def test_the_command_needs_a_file_that_holds_one(heads, tmp_path):
    config, path = tiny_config(), tmp_path / "network.safetensors"
    arguments = ["--network", str(path), "--data", str(heads)]
    save_network(path, Generator(config), None, {}, inverse_renderer=None)
    result = CliRunner().invoke(inverse_rendering.main, arguments)
    assert result.exit_code and len(result.output.splitlines()) == 1
    assert "--with-ir" in result.output
    network = InverseRenderer(width=config.geod.width)
    save_network(path, Generator(config), None, {}, inverse_renderer=network)
    result = CliRunner().invoke(inverse_rendering.main, arguments)
    assert result.exit_code == 0, result.output
    assert "facing plane: depth" in result.output
