import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gen_videos
from tests.tiny import tiny_config
from training.files.network_file import save_network
from training.networks.generator import Generator


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    save_network(path, Generator(tiny_config()).eval(), None, {})
    return path


def run(*arguments: object):
    return CliRunner().invoke(gen_videos.main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["orbit.gif", "orbit.mp4"])
def test_orbit_shows_every_seed_from_all_sides_of_a_round(name, network, tmp_path):
    sizes = ["--seeds", "0-3", "--frames", "6", "--enlarge", "2"]
    result = run("--network", network, "--dest", tmp_path / name, *sizes)
    assert result.exit_code == 0, result.output
    frames = imageio.imread(tmp_path / name, index=None if name.endswith("gif") else ...)
    assert frames.shape == (6, 2 * 64, 2 * 64, 3)
    assert len({frame.tobytes() for frame in frames}) == 6
    assert not list(tmp_path.glob("*.tmp"))


def test_round_goes_through_its_half_axes_and_ends_where_it_began():
    directions = gen_videos.orbit_directions(8, yaw=30, pitch=10).numpy()
    expected = [[0, 10], [30, 0], [0, -10], [-30, 0]]
    np.testing.assert_allclose(directions[::2], expected, atol=1e-5)


@pytest.mark.parametrize(
    "name, complaint", [("orbit.avi", ".gif or .mp4"), ("gone/orbit.gif", "there is no folder")]
)
def test_destinations_that_cannot_be(name, complaint, network, tmp_path):
    result = run("--network", network, "--dest", tmp_path / name)
    assert result.exit_code != 0 and complaint in result.output and "Traceback" not in result.output
