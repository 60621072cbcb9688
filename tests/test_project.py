"""project.py: photographs of any kind in, latents, pictures, videos and meshes out."""

import json
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import gen_samples_pose
import gen_videos
from project import main
from tests.helpers import small_discriminator, small_generator, write_photographs
from tests.pof3d.test_readme import with_surface
from training.files.network_file import load_network, save_network
from training.outputs.latent_files import save_latent
from training.outputs.objects import Objects

QUICK = "--steps 2 --frames 2 --shape-res 16 --perceptual-weight 0 --device cpu".split()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    generator = with_surface(small_generator().eval())
    save_network(folder / "network.safetensors", generator, small_discriminator(), {})
    write_photographs(folder / "photographs", count=2, resolution=40)
    Image.new("RGB", (60, 32), "red").save(folder / "wide.v2.jpg")
    return SimpleNamespace(folder=folder, network=folder / "network.safetensors")


def run(made, *arguments, network="network.safetensors"):
    wanted = ["--network", made.folder / network, *QUICK, *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in wanted])


def test_every_photograph_gets_its_files(made, tmp_path):
    done = run(made, made.folder / "photographs", made.folder / "wide.v2.jpg", "--outdir", tmp_path)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "projections.json").read_text())
    assert list(report) == ["000", "001", "wide.v2"]
    for name, entry in report.items():
        assert f"{name}: PSNR {entry['psnr']:.1f} dB" in done.output
    for name in report:
        picture = np.array(Image.open(tmp_path / f"{name}.png"))
        assert picture.shape == (128, 7 * 128, 3)
        assert imageio.imread(tmp_path / f"{name}.mp4", index=...).shape == (2, 128, 128, 3)
        assert (tmp_path / f"{name}.glb").stat().st_size > 1000
    assert np.array(Image.open(tmp_path / "wide.v2.png"))[:, :128].std(axis=(0, 1)).max() < 2
    assert not list(tmp_path.glob(".*"))
    generator = load_network(made.network).generator
    objects = Objects.from_files(generator, [tmp_path / "001.npz"])
    assert objects.pose[0].tolist() == pytest.approx([report["001"]["h"], report["001"]["v"]])


def test_a_video_of_latents_shows_them(made, tmp_path):
    plain = ["--video", "none", "--shape-format", "none"]
    assert run(made, made.folder / "photographs", "--outdir", tmp_path, *plain).exit_code == 0
    assert not [*tmp_path.glob("*.mp4"), *tmp_path.glob("*.glb")]
    latents = [part for i in range(2) for part in ("--latent", str(tmp_path / f"00{i}.npz"))]
    wanted = ["--network", str(made.network), "--dest", str(tmp_path / "a.gif"), "--frames", "2"]
    done = CliRunner().invoke(gen_videos.main, [*wanted, *latents])
    assert done.exit_code == 0 and "2 objects" in done.output, done.output
    assert imageio.imread(tmp_path / "a.gif").shape == (2, 32, 64, 3)


def test_tuned_networks_are_written_beside_their_latents(made, tmp_path):
    plain = ["--video", "none", "--shape-format", "none", "--tune-steps", "2"]
    done = run(made, made.folder / "photographs" / "000.png", "--outdir", tmp_path, *plain)
    assert done.exit_code == 0, done.output
    tuned = load_network(tmp_path / "000.safetensors").generator
    given = load_network(made.network).generator
    weights = zip(tuned.decoder.parameters(), given.decoder.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in weights)


def test_names_that_occur_twice_stay_apart(made, tmp_path):
    photograph = made.folder / "photographs" / "000.png"
    plain = ["--video", "none", "--shape-format", "none"]
    assert run(made, photograph, photograph, "--outdir", tmp_path, *plain).exit_code == 0
    assert {"000.npz", "000_2.npz"} <= {path.name for path in tmp_path.iterdir()}


def test_samples_of_latents_carry_their_names(made, tmp_path):
    latent = tmp_path / "face.v1.npz"
    generator = load_network(made.network).generator
    ws = Objects.from_seeds(generator, [3]).ws[0]
    save_latent(latent, ws, torch.tensor([1.3, 1.6]))
    wanted = ["--network", str(made.network), "--outdir", str(tmp_path / "out"), "--raw"]
    done = CliRunner().invoke(gen_samples_pose.main, [*wanted, "--latent", str(latent)])
    assert done.exit_code == 0, done.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"face.v1.png", "face.v1_raw.png", "face.v1_pose.npy", "poses.json"} <= written
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())["latents"]
    assert poses["face.v1"]["h"] == pytest.approx(1.3)
    for extra in ([], ["--latent", str(latent), "--seeds", "0"], ["--latent", str(latent)] * 2):
        done = CliRunner().invoke(gen_samples_pose.main, [*wanted, *extra])
        assert done.exit_code and done.output.count("Error:") == 1 and "latent" in done.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nowhere.png"], "there is no"),
        (["network.safetensors"], "cannot read image"),
        (["empty"], "no images"),
        ([], "Missing argument"),
        (["wide.v2.jpg", "--target", "x"], "write the files, folders or zips at the end"),
        (["wide.v2.jpg", "--outdir", "wide.v2.jpg"], "choose another --outdir"),
        (["wide.v2.jpg", "--prior-weight", "nan"], "not a finite number"),
    ],
    ids=str,
)
def test_mistakes_get_one_line(made, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(made.folder)
    (made.folder / "empty").mkdir(exist_ok=True)
    done = run(made, "--outdir", tmp_path / "out", *given)
    assert done.exit_code in (1, 2) and done.output.count("Error:") == 1, done.output
    assert message in done.output and "Traceback" not in done.output
