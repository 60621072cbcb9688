"""gen_samples_pose.py: the published command line, and every option changes what it says."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
import torch
import trimesh
from click.testing import CliRunner, Result
from PIL import Image

import gen_samples_pose
from gen_samples_pose import main
from tests.helpers import SIZES
from training.cameras import cam2world_from_pose, pose_from_degrees
from training.config import Config
from training.files.network_file import save_network
from training.networks.generator import Generator
from training.outputs import samples
from training.outputs.objects import Objects
from training.presets import build_config


def make_network(folder: Path, config: Config) -> SimpleNamespace:
    """A random network whose densities cross level 10, in a file of its own."""
    torch.manual_seed(0)
    generator = Generator(config).eval().requires_grad_(False)
    generator.mapping.w_avg.normal_()
    generator.decoder.net["2"].weight[0] *= 40
    label = torch.randn(8, 25) if config.camera.poses == "given" else None
    planes = generator.planes(generator.latent(torch.randn(8, 8), label).ws)
    densities = generator.field(planes, torch.rand(8, 1000, 3) - 0.5).sigma
    generator.decoder.net["2"].bias[0] += 10 - densities.mean()
    path = folder / "network.safetensors"
    save_network(path, generator, None, {})
    return SimpleNamespace(path=path, generator=generator)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    config = build_config("toy", SIZES | {"rendering.box_warp": 1.0})
    return make_network(tmp_path_factory.mktemp("toy"), config)


@pytest.fixture(scope="module")
def super_resolved(tmp_path_factory):
    sizes = SIZES | {"data.resolution": 128, "rendering.raw_resolution": 16}
    return make_network(tmp_path_factory.mktemp("cats"), build_config("cats", sizes))


@pytest.fixture(scope="module")
def given_pose(tmp_path_factory):
    config = build_config("toy", SIZES | {"camera.poses": "given"})
    return make_network(tmp_path_factory.mktemp("given"), config)


def run(*arguments) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def sample(network, outdir: Path, *options, seeds: str = "0") -> Result:
    result = run("--network", network.path, "--outdir", outdir, "--seeds", seeds, *options)
    assert result.exit_code == 0, result.output
    return result


def read(path: Path) -> np.ndarray:
    """[H, W, 3] in 0 .. 255."""
    return np.asarray(Image.open(path)).astype(int)


def levels(image: torch.Tensor) -> np.ndarray:
    """[3, H, W] in [-1, 1] as `read` gives them."""
    return ((image + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy().astype(int)


def latent_of(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randn(1, 8)).float()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_published_command_line(toy, tmp_path):
    """As in the README of the published code, but for the shorter range of seeds."""
    line = (
        f"--outdir {tmp_path}/out --trunc 0.7 --shapes true --seeds 0-2 --network {toy.path} "
        "--shape-res 128 --dataset toy"
    )
    result = run(*line.split())
    assert result.exit_code == 0, result.output
    expected = {"contact_sheet.png", "poses.json"}
    for seed in (0, 1, 2):
        expected |= {f"seed000{seed}.png", f"seed0000{seed}_pose.npy", f"seed000{seed}.mrc"}
    assert names(tmp_path / "out") == expected
    with mrcfile.open(tmp_path / "out/seed0001.mrc") as file:
        assert file.data.shape == (128, 128, 128)
    poses, ending = result.stdout.strip().splitlines()
    assert poses.startswith("poses") and f"3 samples in {tmp_path}/out" in ending
    assert result.stderr == ""


def test_image_and_pose_are_those_of_numpys_latent(toy, tmp_path):
    sample(toy, tmp_path, "--trunc", 0.6, "--trunc-cutoff", 3, seeds="11,3-4")
    for seed in (3, 4, 11):
        view = toy.generator(latent_of(seed), truncation=0.6, cutoff=3)
        difference = read(tmp_path / f"seed{seed:04d}.png") - levels(view.image[0, 0])
        assert np.abs(difference).max() <= 1
        w = toy.generator.mapping(latent_of(seed))
        expected = toy.generator.cam2world(toy.generator.pose_head(w))[0]
        found = np.load(tmp_path / f"seed{seed:05d}_pose.npy")
        assert found.shape == (4, 4) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["toy", "super_resolved", "given_pose"])
def test_seed_does_not_depend_on_its_company(kind, request):
    network = request.getfixturevalue(kind)

    def render(seeds: list[int]) -> tuple[torch.Tensor, ...]:
        objects = Objects.from_seeds(network.generator, seeds, 0.7, 14)
        view = objects.own_view()
        return objects.pose, view.image, view.raw, view.depth

    alone, together = render([5]), render([0, 1, 2, 5, 9])
    for one, many in zip(alone, together, strict=True):
        torch.testing.assert_close(one[0], many[3], atol=2e-5, rtol=0)
    assert not torch.equal(together[1][0], together[1][1])


def test_files_do_not_depend_on_batches(toy, tmp_path):
    options = ("--shapes", "true", "--shape-res", 12, "--depth")
    sample(toy, tmp_path / "a", *options, "--batch", 1, seeds="0-4")
    sample(toy, tmp_path / "b", *options, "--batch", 5, seeds="0-4")
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for path in (tmp_path / "a").glob("*.png"):
        step = 1 if "depth" not in path.name else 3  # between neighbors in the color map
        assert np.abs(read(path) - read(tmp_path / "b" / path.name)).max() <= step
    for path in (tmp_path / "a").glob("*.mrc"):
        with mrcfile.open(path) as one, mrcfile.open(tmp_path / "b" / path.name) as other:
            np.testing.assert_allclose(one.data, other.data, atol=1e-4)


def test_chosen_views_come_beside_the_own_one(toy, tmp_path):
    sample(toy, tmp_path, "--yaw", "-20,0,7.5", "--pitch", "10", seeds="2-3")
    generator = toy.generator
    expected = {"contact_sheet.png", "poses.json"}
    for seed in (2, 3):
        expected |= {f"seed000{seed}.png", f"seed0000{seed}_pose.npy"}
        for yaw, text in ((-20, "-20"), (0, "+00"), (7.5, "+7.5")):
            name = f"seed000{seed}_yaw{text}_pitch+10.png"
            expected.add(name)
            pose = pose_from_degrees(torch.tensor([[yaw, 10.0]]), math.pi / 2)
            latent = generator.latent(latent_of(seed))
            view = generator.render(
                generator.planes(latent.ws), latent.ws, generator.cam2world(pose)[:, None]
            )
            assert np.abs(read(tmp_path / name) - levels(view.image[0, 0])).max() <= 1
    assert names(tmp_path) == expected
    sheet = read(tmp_path / "contact_sheet.png")  # a row for each seed
    assert sheet.shape == (2 * 128, 4 * 128, 3)  # 32 px enlarged
    assert np.array_equal(sheet[128::4, :128:4], read(tmp_path / "seed0003.png"))
    last = read(tmp_path / "seed0003_yaw+7.5_pitch+10.png")
    assert np.array_equal(sheet[128::4, 384::4], last)


def test_raw_and_depth_pictures(super_resolved, tmp_path):
    sample(super_resolved, tmp_path, "--raw", "--depth", "--pitch", "-5")
    for stem in ("seed0000", "seed0000_yaw+00_pitch-05"):
        assert read(tmp_path / f"{stem}.png").shape == (128, 128, 3)
        assert read(tmp_path / f"{stem}_raw.png").shape == (16, 16, 3)
        assert read(tmp_path / f"{stem}_depth.png").shape == (16, 16, 3)


def test_field_of_view_is_that_of_the_option(toy, tmp_path):
    sample(toy, tmp_path / "own")
    sample(toy, tmp_path / "same", "--fov-deg", 18.837)
    sample(toy, tmp_path / "wide", "--fov-deg", 40)
    own, same, wide = (read(tmp_path / name / "seed0000.png") for name in ("own", "same", "wide"))
    assert np.abs(own - same).max() <= 1 and np.abs(own - wide).max() > 2


def test_truncation_and_its_cutoff_count(toy, tmp_path):
    sample(toy, tmp_path / "none")
    sample(toy, tmp_path / "half", "--trunc", 0.5)
    sample(toy, tmp_path / "cut", "--trunc", 0.5, "--trunc-cutoff", 0)
    none, half, cut = (read(tmp_path / name / "seed0000.png") for name in ("none", "half", "cut"))
    assert np.array_equal(none, cut) and not np.array_equal(none, half)


def test_volume_holds_the_raw_density(toy, tmp_path):
    sample(toy, tmp_path, "--shapes", "true", "--shape-res", 11, seeds="1")
    planes = toy.generator.planes(toy.generator.latent(latent_of(1)).ws)
    point = torch.tensor([[[0.3, -0.2, 0.1]]])  # steps of 0.1 from -0.5: (8, 3, 6)
    with mrcfile.open(tmp_path / "seed0001.mrc") as file:
        assert file.data[6, 3, 8] == pytest.approx(
            toy.generator.field(planes, point).sigma.item(), rel=1e-4
        )


@pytest.mark.parametrize("level", [10, 9])
def test_mesh_lies_on_the_level(toy, tmp_path, level):
    options = ("--shapes", "true", "--shape-res", 64, "--shape-format", ".ply", "--level", level)
    sample(toy, tmp_path, *options)
    mesh = trimesh.load(tmp_path / "seed0000.ply", process=False)
    points = torch.from_numpy(np.array(mesh.vertices)).float()
    inside = points[(points.abs() < 0.45).all(dim=1)]
    planes = toy.generator.planes(toy.generator.latent(latent_of(0)).ws)
    density = toy.generator.field(planes, inside[None]).sigma
    spread = toy.generator.field(planes, torch.rand(1, 1000, 3) - 0.5).sigma.std()
    assert len(inside) > 100
    assert (density - level).abs().mean() < 0.02 * spread


def test_empty_surface_is_said_and_leaves_no_file(toy, tmp_path):
    for extension in (".mrc", ".ply"):
        result = sample(
            toy, tmp_path, "--shapes", "true", "--shape-res", 8, "--level", 1e6,
            "--shape-format", extension, seeds="7",
        )  # fmt: skip
        said = f"seed0007: no surface at level 1e+06, no seed0007{extension} written"
        assert said in result.stdout
    assert names(tmp_path) == {"contact_sheet.png", "poses.json", "seed0007.png",
                               "seed00007_pose.npy"}  # fmt: skip


def test_mesh_is_dense_when_the_audit_says_so(toy, tmp_path, monkeypatch):
    options = ("--shapes", "true", "--shape-res", 24, "--shape-format", ".ply")
    sample(toy, tmp_path / "sparse", *options)
    monkeypatch.setattr("training.outputs.coarse_to_fine._Search.is_overlooked", lambda *_: True)
    result = sample(toy, tmp_path / "dense", *options)
    assert "seed0000: took the dense grid, for the coarse one misses surface" in result.stdout
    meshes = [trimesh.load(tmp_path / kind / "seed0000.ply") for kind in ("sparse", "dense")]
    assert len(meshes[0].faces) == len(meshes[1].faces) > 0


@pytest.mark.parametrize("extension", [".mrc", ".ply"])
def test_preview_lies_beside_the_shape(toy, tmp_path, extension):
    options = ("--shapes", "true", "--shape-res", 24, "--shape-format", extension)
    sample(toy, tmp_path, *options, "--shape-preview", seeds="3")
    assert {f"seed0003{extension}", "seed0003_shape.png"} <= names(tmp_path)
    picture = read(tmp_path / "seed0003_shape.png")
    assert picture.shape == (256, 256, 3) and len(np.unique(picture)) > 20


def test_pose_statistics_are_those_of_the_cameras(toy, tmp_path):
    result = sample(toy, tmp_path, seeds="0-9")
    statistics = json.loads((tmp_path / "poses.json").read_text())
    cameras = np.stack([np.load(tmp_path / f"seed{seed:05d}_pose.npy") for seed in range(10)])
    x, y, z = cameras[:, :3, 3].T / 2.7
    found = {"yaw_degrees": np.arctan2(x, z), "pitch_degrees": np.arcsin(y)}
    for name, radians in found.items():
        degrees = np.rad2deg(radians)
        assert statistics[name]["mean"] == pytest.approx(degrees.mean(), abs=1e-3)
        assert statistics[name]["std"] == pytest.approx(degrees.std(), abs=1e-3)
        assert statistics["seeds"]["4"][name] == pytest.approx(degrees[4], abs=1e-3)
    pose = torch.tensor([[statistics["seeds"]["4"][angle] for angle in "hv"]])
    camera = cam2world_from_pose(pose, 2.7, (0.0, 0.0, 0.0))
    np.testing.assert_allclose(cameras[4], camera[0], atol=1e-5)
    yaw = statistics["yaw_degrees"]
    assert f"yaw {yaw['mean']:+.1f} ± {yaw['std']:.1f}" in result.stdout


def test_given_pose_is_the_frontal_camera(given_pose, tmp_path):
    """Its 25 numbers are the conditioning label; further views share the object."""
    generator = given_pose.generator
    sample(given_pose, tmp_path, "--yaw", "30", seeds="6")
    camera = cam2world_from_pose(torch.full((1, 2), math.pi / 2), 2.7, (0.0, 0.0, 0.0))
    np.testing.assert_allclose(np.load(tmp_path / "seed00006_pose.npy"), camera[0], atol=1e-6)
    label = torch.cat([camera.flatten(), generator.intrinsics.flatten()])[None]
    latent = generator.latent(latent_of(6), label)
    turned = cam2world_from_pose(
        torch.tensor([[math.pi / 2 + math.radians(30), math.pi / 2]]), 2.7, (0.0, 0.0, 0.0)
    )
    for name, cam2world in (("", camera), ("_yaw+30_pitch+00", turned)):
        view = generator.render(generator.planes(latent.ws), latent.ws, cam2world[:, None])
        image = read(tmp_path / f"seed0006{name}.png")
        assert np.abs(image - levels(view.image[0, 0])).max() <= 1


def test_contact_sheet_stays_small(super_resolved, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "SHEET_PIXELS", 16)
    monkeypatch.setattr(samples, "SHEET_PICTURES", 4)
    result = sample(toy, tmp_path, seeds="0-9")
    assert read(tmp_path / "contact_sheet.png").shape == (32, 32, 3)
    assert "contact_sheet.png shows the first 4" in result.stdout
    expected = read(tmp_path / "seed0001.png").reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(read(tmp_path / "contact_sheet.png")[:16, 16:] - expected).max() <= 1


@pytest.mark.parametrize(
    ("dataset", "warns"),
    [("cats", False), ("ffhq", True), ("shapenetcars", True), ("shapenet_cars", True)],
)
def test_contradicting_dataset_is_one_warning(super_resolved, tmp_path, dataset, warns):
    result = sample(super_resolved, tmp_path, "--dataset", dataset)
    assert len(result.stderr.splitlines()) == warns
    assert warns == (f"warning: --dataset {dataset}" in result.stderr)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0-x"], "'0-x' is neither a seed nor a range"),
        (["--seeds", "5-2"], "runs backwards; write 2-5"),
        (["--seeds", "1,,2"], "'' is neither"),
        (["--seeds", "4294967296"], "seeds go up to 4294967295"),
        (["--network", "absent.safetensors"], "absent.safetensors does not exist"),
        (["--network", __file__], "is not a readable network file"),
        (["--network", "/dev/null"], "is a device or a pipe"),
        (["--outdir", __file__], "cannot write samples"),
        (["--outdir", __file__, "--seeds", "0-4294967295"], "cannot write samples"),
        (["--outdir", "/dev/null/out"], "cannot write samples"),
        (["--level", "nan"], "nan is not a finite number"),
        (["--level", "high"], "'high' is not a valid float"),
        (["--trunc", "inf"], "inf is not a finite number"),
        (["--fov-deg", "0"], "0.0 is not in the range"),
        (["--yaw", "10,left"], "is not a list of degrees"),
        (["--pitch", "91"], "angles go from -90 to 90"),
        (["--pitch", "nan"], "angles go from -90 to 90"),
        (["--shape-res", "1"], "1 is not in the range"),
        (["--shape-format", ".fbx"], "'.fbx' is not one of '.mrc', '.ply'"),
        (["--shape-preview"], "--shape-preview is of shapes; add --shapes true"),
        (["--dataset", "dogs"], "'dogs' is not one of"),
        (["--batch", "0"], "0 is not in the range"),
        (["--level", "automatic"], "'automatic' is not a valid float"),
        (["--texture", "64"], "--texture needs --shapes true and --shape-format .obj or .glb"),
        (["--keep-largest"], "--keep-largest is of meshes"),
        (["--mix-layers", "1"], "--mix-layers is of --mix-with SEEDS"),
        (["--mix-with", "1", "--mix-layers", "99"], "this network has layers 0 to"),
        (["--mix-with", "0-999"], "are more than 400"),
    ],
)
def test_bad_input_gets_one_line(toy, tmp_path, options, message):
    result = run("--network", toy.path, "--outdir", tmp_path / "out", "--seeds", "0", *options)
    assert result.exit_code != 0
    assert message in result.output.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_absent_cuda_is_said(toy, tmp_path):
    result = run(
        "--network", toy.path, "--outdir", tmp_path / "out", "--seeds", "0", "--device", "cuda"
    )
    assert result.exit_code == 1 and "no CUDA device" in result.output


def script_with_limits(toy, outdir, limits: str, *options: str, **how):
    """The real command under a shell's limits, and seed 0."""
    command = f"{limits}; exec {sys.executable} {gen_samples_pose.__file__} --network {toy.path} "
    command += f"--outdir {outdir} --seeds 0 {' '.join(options)}"
    return subprocess.run(["bash", "-c", command], text=True, stderr=subprocess.PIPE, **how)


def test_real_command_reports_a_full_disk_in_one_line_and_leaves_whole_files(toy, tmp_path):
    """A limit on the size of files stands in for the disk."""
    shapes = ("--shapes true", "--shape-res 32")
    done = script_with_limits(toy, tmp_path / "out", "ulimit -f 8; trap '' XFSZ", *shapes)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("Error: cannot write samples")
    assert names(tmp_path / "out") == {"seed0000.png", "seed00000_pose.npy"}
    assert read(tmp_path / "out/seed0000.png").shape == (32, 32, 3)


def test_out_of_memory_names_what_lowers_it(toy, tmp_path):
    """A limit on the address space, a little above what the libraries take."""
    code = (
        "import resource, sys, gen_samples_pose, torch, training.outputs.samples\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)\n"
        "gen_samples_pose.main(sys.argv[1:])"
    )
    arguments = f"--network {toy.path} --outdir {tmp_path / 'out'} --seeds 0 --shapes true"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split(), "--shape-res", "1024"],
        capture_output=True, text=True, cwd=Path(gen_samples_pose.__file__).parent,
    )  # fmt: skip
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: out of memory (4 GiB more were asked for)")
    assert "--shape-res" in line


def test_a_reader_that_has_gone_does_not_blame_the_folder(toy, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = script_with_limits(toy, tmp_path / "out", "trap '' PIPE", stdout=closed)
    assert "outdir" not in done.stderr and "Traceback" not in done.stderr
    assert {"seed0000.png", "contact_sheet.png", "poses.json"} <= names(tmp_path / "out")


def test_render_size_is_the_size_of_the_rendering(toy, super_resolved, tmp_path):
    sample(toy, tmp_path / "toy", "--render-size", 80, "--depth")
    assert read(tmp_path / "toy/seed0000.png").shape == (80, 80, 3)
    assert read(tmp_path / "toy/seed0000_depth.png").shape == (80, 80, 3)
    sample(super_resolved, tmp_path / "cats", "--render-size", 24, "--raw")
    assert read(tmp_path / "cats/seed0000.png").shape == (128, 128, 3)
    assert read(tmp_path / "cats/seed0000_raw.png").shape == (24, 24, 3)


@pytest.mark.parametrize("extension", [".obj", ".glb", ".stl"])
def test_meshes_come_in_the_formats_of_other_tools(toy, tmp_path, extension):
    options = ("--shapes", "true", "--shape-res", 16, "--shape-format", extension)
    sample(toy, tmp_path, *options)
    assert len(trimesh.load(tmp_path / f"seed0000{extension}", force="mesh").faces) > 0


def test_network_may_be_its_run_folder(toy, tmp_path):
    shutil.copy(toy.path, tmp_path / "network-000004.00.safetensors")
    (tmp_path / "network-000001.00.safetensors").write_text("broken, and older")
    result = run("--network", tmp_path, "--outdir", tmp_path / "out", "--seeds", "0")
    assert result.exit_code == 0, result.output


def test_new_formats_find_their_level_and_published_ones_on_request(toy, tmp_path):
    shapes = ("--shapes", "true", "--shape-res", 16, "--shape-format")
    found = [
        sample(toy, tmp_path, *shapes, *options).stdout
        for options in ([".glb"], [".ply", "--level", "auto"], [".ply"], [".glb", "--level", "10"])
    ]
    line = re.compile(r"^seed0000: level -?[\d.]+, silhouettes agree by [\d.]+%$", re.MULTILINE)
    assert [bool(line.search(output)) for output in found] == [True, True, False, False]


def test_a_texture_comes_with_the_mesh(toy, tmp_path):
    pytest.importorskip("xatlas", reason="textures need xatlas")
    pytest.importorskip("fast_simplification", reason="textures need fast-simplification")
    options = ("--shapes", "true", "--shape-res", 24, "--shape-format", ".obj", "--keep-largest")
    sample(toy, tmp_path, *options, "--texture", 64, "--faces", 300)
    assert {"seed0000.obj", "seed0000.mtl", "seed0000_texture.png"} <= names(tmp_path)
    assert read(tmp_path / "seed0000_texture.png").shape == (64, 64, 3)
    assert 0 < len(trimesh.load(tmp_path / "seed0000.obj", force="mesh").faces) <= 300


def test_absent_packages_for_textures_are_said(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xatlas", None)
    result = run("--network", toy.path, "--outdir", tmp_path / "out", "--seeds", 0, "--shapes",
                 "true", "--shape-format", ".glb", "--texture", 64)  # fmt: skip
    last = result.output.strip().splitlines()[-1]
    assert result.exit_code == 1 and "pip install fast-simplification xatlas" in last
    assert not (tmp_path / "out").exists()


def test_mixed_styles_are_a_table(toy, tmp_path):
    sample(toy, tmp_path, "--mix-with", "5-6", "--mix-layers", "0-2", seeds="0-1")
    table = read(tmp_path / "style_mixing.png").reshape(3, 32, 3, 32, 3).transpose(0, 2, 1, 3, 4)
    assert (table[0, 0] == 255).all()
    for cell, seed in (((1, 0), 0), ((2, 0), 1)):
        assert np.abs(table[cell] - read(tmp_path / f"seed000{seed}.png")).max() <= 1
    row, column = (toy.generator.latent(latent_of(seed)) for seed in (1, 6))
    ws = torch.cat([column.ws[:, :3], row.ws[:, 3:]], dim=1)
    view = Objects.from_ws(toy.generator, ws, row.pose).own_view()
    assert np.abs(table[2, 2] - levels(view.image[0])).max() <= 1


@pytest.mark.parametrize("option", ["--truncation_psi", "--psi", "--nrr", "--class", "--dest",
                                    "--sample_mult", "--network_pkl"])  # fmt: skip
def test_options_of_eg3d_get_a_hint(toy, option):
    result = run("--network", toy.path, option, "1")
    last = result.output.strip().splitlines()[-1]
    assert result.exit_code == 2 and f"there is no {option} here: " in last
