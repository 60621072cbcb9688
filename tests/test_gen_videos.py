import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gen_videos
from tests.helpers import tiny_config
from training.files.network_file import save_network
from training.networks.generator import Generator
from training.outputs import videos


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
    directions = videos.swing(8, yaw=30, pitch=10).numpy()
    expected = [[0, 10], [30, 0], [0, -10], [-30, 0]]
    np.testing.assert_allclose(directions[::2], expected, atol=1e-5)


@pytest.mark.parametrize(
    "name, complaint", [("orbit.avi", ".gif or .mp4"), ("gone/orbit.gif", "there is no folder")]
)
def test_destinations_that_cannot_be(name, complaint, network, tmp_path):
    result = run("--network", network, "--dest", tmp_path / name)
    assert result.exit_code != 0 and complaint in result.output and "Traceback" not in result.output


def test_a_turntable_turns_all_the_way_at_one_height():
    directions = videos.turntable(6, yaw=35, pitch=10).numpy()
    np.testing.assert_allclose(directions[:, 0], [0, 60, 120, 180, 240, 300], atol=1e-4)
    np.testing.assert_allclose(directions[:, 1], 10)


def frames_of(network, dest, *options):
    small = ["--seeds", "0", "--frames", "4"]
    result = run("--network", network, "--dest", dest, *small, *options)
    assert result.exit_code == 0, result.output
    return imageio.imread(dest, index=None)


def test_yaw_180_is_a_turntable(network, tmp_path):
    turned = frames_of(network, tmp_path / "a.gif", "--yaw", "180")
    explicit = frames_of(network, tmp_path / "b.gif", "--trajectory", "turntable")
    swung = frames_of(network, tmp_path / "c.gif", "--yaw", "180", "--trajectory", "swing")
    assert np.array_equal(turned, explicit) and not np.array_equal(turned, swung)


def test_render_size_is_that_of_the_option(network, tmp_path):
    large = frames_of(network, tmp_path / "a.gif", "--render-size", "48")
    assert large.shape == (4, 48, 48, 3)


@pytest.mark.parametrize("seeds", ["0-99999", "0-4294967295"])
def test_more_seeds_than_a_frame_holds_are_refused_at_once(seeds, network, tmp_path):
    result = run("--network", network, "--dest", tmp_path / "a.gif", "--seeds", seeds)
    assert result.exit_code == 1 and "lower the number of --seeds" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--outdir", "--grid", "--num-keyframes", "--w-frames",
                                    "--w_frames", "--truncation_psi", "--nrr"])  # fmt: skip
def test_options_of_eg3d_get_a_hint(option, network):
    result = run("--network", network, option, "1")
    last = result.output.strip().splitlines()[-1]
    assert result.exit_code == 2 and f"there is no {option} here: " in last
