import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageSequence

import gen_videos
from tests.helpers import tiny_config
from torch_utils.images import to_uint8
from training.files.network_file import load_network, save_network
from training.networks.generator import Generator
from training.outputs import videos
from training.outputs.figures import depth_colors, normal_colors
from training.outputs.objects import Objects


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    save_network(path, Generator(tiny_config()).eval(), None, {})
    return path


def run(*arguments: object):
    return CliRunner().invoke(gen_videos.main, [str(argument) for argument in arguments])


def read(path) -> np.ndarray:
    """[F, H, W, 3]."""
    if path.suffix == ".mp4":
        return imageio.imread(path)
    with Image.open(path) as film:
        return np.stack([np.asarray(each.convert("RGB")) for each in ImageSequence.Iterator(film)])


@pytest.mark.parametrize("name", ["orbit.gif", "orbit.mp4", "orbit.webp"])
def test_orbit_shows_every_seed_from_all_sides_of_a_round(name, network, tmp_path):
    sizes = ["--seeds", "0-3", "--frames", "6", "--enlarge", "2"]
    result = run("--network", network, "--dest", tmp_path / name, *sizes)
    assert result.exit_code == 0, result.output
    frames = read(tmp_path / name)
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
    return read(dest)


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


@pytest.mark.parametrize("option", ["--output", "--shuffle-seed", "--truncation_psi", "--nrr"])
def test_options_of_eg3d_get_a_hint(option, network):
    result = run("--network", network, option, "1")
    last = result.output.strip().splitlines()[-1]
    assert result.exit_code == 2 and f"there is no {option} here: " in last


def test_a_spiral_turns_twice_and_ends_at_its_height():
    yaw, pitch = videos.spiral(8, yaw=35, pitch=20).unbind(1)
    np.testing.assert_allclose(yaw, np.arange(8) * 90, atol=1e-4)
    np.testing.assert_allclose(pitch[::2], [20, 0, -20, 0], atol=1e-4)


@pytest.mark.parametrize("mode", ["raw", "depth", "normals", "opacity"])
def test_image_modes_show_what_their_name_says(mode, network, tmp_path):
    frames = frames_of(network, tmp_path / "a.webp", "--image-mode", mode, "--yaw", "0")
    generator = load_network(network).generator
    objects = Objects.from_seeds(generator, [0], 0.7, 14)
    direction = generator.pose_from_degrees(torch.tensor([[0.0, 10.0]]))
    view = objects.render(direction).select(0)
    expected = {
        "raw": view.raw,
        "depth": depth_colors(view.depth, view.opacity, generator.config),
        "normals": normal_colors(view.depth, view.opacity, generator.intrinsics),
        "opacity": (view.opacity * 2 - 1).expand(-1, 3, -1, -1),
    }[mode]
    pixels = to_uint8(expected[0]).permute(1, 2, 0).detach().numpy().astype(int)
    assert np.abs(frames[0] - pixels).mean() < 12  # webp is lossy


def test_the_curve_goes_through_its_keyframes_and_closes():
    keyframes = torch.randn(2, 3, 5)
    points = torch.stack(list(videos.closed_curve(keyframes, 12)), dim=1)
    torch.testing.assert_close(points[:, ::4], keyframes)
    finer = torch.stack(list(videos.closed_curve(keyframes, 1200)), dim=1)
    steps = torch.cat([finer, finer[:, :1]], dim=1).diff(dim=1).norm(dim=-1)
    assert (steps.roll(1, dims=1) - steps).abs().max() < 0.05 * steps.max()  # no kinks


def test_interpolation_starts_at_the_first_seed_and_goes_on_to_the_others(network, tmp_path):
    still = ["--yaw", "0", "--pitch", "0", "--render-size", "16"]
    result = run("--network", network, "--dest", tmp_path / "a.webp", "--seeds", "3,5,8,9",
                 "--interpolate", "--grid", "2x1", "--w-frames", "2", *still)  # fmt: skip
    assert result.exit_code == 0, result.output
    frames = read(tmp_path / "a.webp").astype(int)
    assert frames.shape == (4, 16, 32, 3)
    run("--network", network, "--dest", tmp_path / "b.webp", "--seeds", "3,8", "--frames", "2",
        "--grid", "2x1", *still)  # fmt: skip
    run("--network", network, "--dest", tmp_path / "c.webp", "--seeds", "5,9", "--frames", "2",
        "--grid", "2x1", *still)  # fmt: skip
    first, second = (read(tmp_path / name)[0].astype(int) for name in ("b.webp", "c.webp"))
    assert np.abs(first - second).mean() > 5
    assert np.abs(frames[0] - first).mean() < 4 and np.abs(frames[2] - second).mean() < 4


def test_outdir_gets_a_video_of_each_seed_or_one_interpolation(network, tmp_path):
    small = ["--network", network, "--outdir", tmp_path / "out", "--seeds", "4-5"]
    assert run(*small, "--frames", "2").exit_code == 0
    result = run(*small, "--interpolate", "--num-keyframes", "2", "--w-frames", "1")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"seed0004.mp4", "seed0005.mp4", "interpolation.mp4"}


def test_the_mesh_stands_beside_the_picture_in_gray(network, tmp_path):
    frames = frames_of(network, tmp_path / "a.webp", "--mesh", "--shape-res", "16")
    assert frames.shape == (4, 32, 64, 3)
    mesh = frames[:, :, 36:].astype(int)  # some way from where webp mixes colors
    assert np.ptp(mesh, axis=-1).max() < 12 and 60 < np.ptp(mesh[..., 0])


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["--outdir", "out"], "write either --dest FILE.mp4 or --outdir FOLDER"),
        (["--grid", "2"], "'2' is no grid; write 4x2"),
        (["--grid", "0x2"], "'0x2' is no grid"),
        (["--grid", "2x1", "--seeds", "0-2"], "--grid 2x1 does not hold 3 seeds"),
        (["--w-frames", "3"], "are of --interpolate; add it"),
        (["--interpolate", "--frames", "9"], "write --w-frames in place of --frames"),
        (["--interpolate", "--seeds", "0-4294967295"], "frames, more than 100000"),
        (["--frames", "100001"], "frames, more than 100000"),
        (["--interpolate", "--mesh"], "--mesh shows objects that stay as they are"),
        (["--interpolate", "--seeds", "3"], "two or more: 1 tiles, 1 seeds"),
        (["--interpolate", "--grid", "2x2", "--seeds", "0-6"], "4 tiles, 7 seeds"),
        (["--interpolate", "--num-keyframes", "3", "--seeds", "0-3"], "--num-keyframes 3"),
    ],
)
def test_contradictions_get_one_line(options, complaint, network, tmp_path):
    result = run("--network", network, "--dest", tmp_path / "a.gif", *options)
    assert result.exit_code != 0 and complaint in result.output.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
