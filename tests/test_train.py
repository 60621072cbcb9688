"""The command line of train.py, in processes of its own: whole runs, and mistakes."""

import bz2
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from PIL import Image

import train
from tests.helpers import PATIENCE, tiny_arguments, write_photographs
from training.data.ground_truth import load_ground_truth
from training.data.toy_set import make_toy_dataset
from training.files.network_file import load_network

ROOT = Path(__file__).parents[1]
SHORT = ["--kimg", "0.012", "--tick", "0.008", "--snap", "1"]


def run(*arguments: object, **variables: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "train.py", *map(str, arguments)]
    changed = {name: str(value) for name, value in variables.items()}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | changed
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=PATIENCE
    )


def complaint(*arguments: object) -> str:
    """The one line with which a command line is refused."""
    result = CliRunner().invoke(train.main, [str(argument) for argument in arguments])
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    (line,) = (line for line in result.output.splitlines() if line.startswith("Error:"))
    return line


@pytest.fixture(scope="module")
def toy_heads(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "heads.zip"
    make_toy_dataset(path, 16, 32, seed=0)
    return path


@pytest.fixture(scope="module")
def finished(toy_heads, tmp_path_factory) -> Path:
    """The folder of a run on a few toy heads."""
    outdir = tmp_path_factory.mktemp("runs")
    arguments = ["--cfg", "toy", "--data", toy_heads, *tiny_arguments(), *SHORT]
    result = run("--outdir", outdir, *arguments)
    assert result.returncode == 0, result.stderr
    (folder,) = outdir.iterdir()
    return folder


def test_run_folder_holds_what_is_promised(finished):
    assert finished.name == "00000-toy-heads-gpus1-batch4-gamma0.5"
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "log.txt", "stats.jsonl", "reals.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    for tag in ("000000.01", "000000.00"):
        wanted = {f"{kind}-{tag}.png" for kind in ("fakes", "depth", "normals", "yaws", "poses")}
        assert wanted <= names
    assert "network-000000.01.safetensors" in names and "checkpoint-000000.01.pt" in names


def test_stats_and_log_agree(finished):
    records = [json.loads(line) for line in (finished / "stats.jsonl").read_text().splitlines()]
    assert [record["tick"] for record in records] == [1, 2]
    assert [record["kimg"] for record in records] == [0.008, 0.012]
    for key in ("G/loss_own_view", "D/loss_real", "G/depth_spread", "pose/generated_h_std"):
        assert all(isinstance(record[key], float) for record in records)
    log = (finished / "log.txt").read_text()
    assert log.count("s/kimg") == 2 and "kimg 0.01/0.012" in log
    assert json.loads((finished / "config.json").read_text())["run"]["kimg"] == 0.012


@pytest.mark.parametrize("tampering", ["deleted", "corrupted"])
def test_training_never_reads_the_ground_truth(toy_heads, finished, tampering, tmp_path):
    """Poses, depths and identities of the toy set leave no trace in the weights."""
    data = tmp_path / "heads.zip"
    with zipfile.ZipFile(toy_heads) as source, zipfile.ZipFile(data, "w") as target:
        for name in source.namelist():
            if name != "ground_truth.npz":
                target.writestr(name, source.read(name))
            elif tampering == "corrupted":
                target.writestr(name, b"not what it was")
    arguments = ["--cfg", "toy", "--data", data, *tiny_arguments(), *SHORT]
    result = run("--outdir", tmp_path / "runs", *arguments)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    name = "network-000000.01.safetensors"
    found, expected = (safetensors.torch.load_file(path / name) for path in (folder, finished))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_custom_trains_on_any_folder_with_what_it_finds_there(photographs, tmp_path):
    """On the CPU with the small networks, and it says so."""
    arguments = [*tiny_arguments(), "--device", "cpu", "--kimg", "0.004"]
    result = run("--outdir", tmp_path, "--cfg", "custom", "--data", photographs, *arguments)
    assert result.returncode == 0, result.stderr
    assert "--gamma 0.0512" in result.stdout and "white_background=true" in result.stdout
    assert "--cfg custom takes the networks of --cfg small, at 32 pixels" in result.stdout
    (folder,) = tmp_path.iterdir()
    config = json.loads((folder / "config.json").read_text())
    assert config["loss"]["gamma"] == 0.0512 and config["rendering"]["white_background"]
    assert config["augment"]["color_p"] == 0.5 and config["rendering"]["density_scale"] == 12
    assert config["generator"]["depth_trial_kimg"] == [16, 8]


@pytest.mark.parametrize(
    "given, expected", [([], False), (["--set", "rendering.white_background=true"], True)]
)
def test_a_background_that_is_not_white_is_found_unless_it_is_given(given, expected, tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(4):  # a white border of some is that of a print
        Image.new("RGB", (32, 32), "white" if number == 0 else "gray").save(
            tmp_path / "data" / f"{number}.png"
        )
    arguments = ["--cfg", "small", "--data", tmp_path / "data", "--dry-run", *given]
    said = run("--outdir", tmp_path / "runs", *arguments).stdout
    config = json.loads(said[said.index("{") :])
    assert config["rendering"]["white_background"] == expected
    assert config["generator"]["background"] != expected
    assert config["rendering"]["density_scale"] == 12
    # These are for photographs on white.
    assert config["augment"]["color_p"] == 0 and config["generator"]["depth_trial_kimg"] is None


@pytest.mark.parametrize(
    "color, unknown", [("gray", "generator.background"), ("white", "augment.color_p")]
)
def test_runs_of_earlier_versions_resume_with_what_they_had(color, unknown, tmp_path):
    """They chose less for the data, and other numbers for all."""
    (tmp_path / "data").mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32), color).save(tmp_path / "data" / f"{number}.png")
    arguments = ["--cfg", "small", "--data", tmp_path / "data", "--outdir", tmp_path / "runs"]
    arguments += [*tiny_arguments(), "--device", "cpu"]
    numbers = {"generator.diversity_clarity": 0.5, "rendering.density_scale": 5}
    had = [f"--set={key}={value}" for key, value in {unknown: 0, **numbers}.items()]
    begun = run(*arguments, "--kimg", "0.004", *had)
    assert begun.returncode == 0, begun.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    config = json.loads((folder / "config.json").read_text())
    section, field = unknown.split(".")
    del config[section][field]  # as they wrote it
    (folder / "config.json").write_text(json.dumps(config))
    resumed = run(*arguments, "--kimg", "0.008", "--resume", "latest")
    assert resumed.returncode == 0, resumed.stderr
    assert list((tmp_path / "runs").iterdir()) == [folder]
    config = json.loads((folder / "config.json").read_text())
    assert config["run"]["kimg"] == 0.008 and not config[section][field]
    assert config["generator"]["diversity_clarity"] == 0.5
    assert config["rendering"]["density_scale"] == 5


def test_custom_has_the_papers_networks_at_the_papers_resolution(photographs, tmp_path):
    arguments = ["--outdir", tmp_path, "--cfg", "custom", "--data", photographs, "--dry-run"]
    large = run(*arguments, "--device", "cpu", "--set", "data.resolution=256")
    assert json.loads(large.stdout[large.stdout.index("{") :])["generator"]["w_dim"] == 512
    small = run(*arguments, "--device", "cpu", "--set", "data.resolution=64")
    config = json.loads(small.stdout[small.stdout.index("{") :])
    assert config["generator"]["w_dim"] == 64
    assert config["rendering"]["raw_resolution"] == config["data"]["resolution"] == 64
    assert config["generator"]["plane_resolution"] == 64
    assert config["generator"]["diversity_clarity"] == 0.7


def test_a_resumed_network_has_different_objects_from_the_start(photographs, tmp_path):
    arguments = ["--outdir", tmp_path, "--cfg", "small", "--data", photographs, "--dry-run"]
    arguments += ["--set", "data.resolution=64", "--resume", ROOT / "models/heads.safetensors"]
    said = run(*arguments).stdout
    config = json.loads(said[said.index("{") :])
    assert config["generator"]["diversity_clarity"] is None
    assert config["rendering"]["density_scale"] == 5  # the network's, on white as well


def test_a_run_from_weights_is_resumed_with_different_objects(photographs, tmp_path):
    arguments = ["--outdir", tmp_path, "--cfg", "small", "--data", photographs, "--device", "cpu"]
    arguments += [*tiny_arguments(), "--kimg", "0.004"]
    assert run(*arguments).returncode == 0
    (weights,) = tmp_path.glob("*/network-000000.00.safetensors")
    assert run(*arguments, "--resume", weights, "--desc", "from-weights").returncode == 0
    resumed = run(*arguments[:-1], "0.008", "--resume", "latest", "--desc", "from-weights")
    assert resumed.returncode == 0, resumed.stderr
    (folder,) = tmp_path.glob("*from-weights")
    config = json.loads((folder / "config.json").read_text())
    assert config["run"]["kimg"] == 0.008 and config["generator"]["diversity_clarity"] is None


def test_two_processes_train(photographs, tmp_path):
    arguments = ["--cfg", "toy", "--data", photographs, *tiny_arguments(), "--kimg", "0.008"]
    result = run("--outdir", tmp_path, *arguments, "--gpus", 2, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    (folder,) = tmp_path.iterdir()
    assert "2 process(es) on cpu" in (folder / "log.txt").read_text()
    assert (folder / "network-000000.01.safetensors").exists()


@pytest.mark.parametrize("option, gpus", [((), 4), (("--gpus", "2"), 2)])
def test_torchrun_says_how_many_processes_there_are(monkeypatch, photographs, option, gpus):
    """Unless the command line does; an elastic restart has another number, and the same line."""
    for name, value in {"RANK": 0, "WORLD_SIZE": 4, "MASTER_ADDR": "a", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    arguments = ["--outdir", "none", "--cfg", "cats", "--data", str(photographs), "--dry-run"]
    said = CliRunner().invoke(train.main, [*arguments, *option]).stdout
    assert json.loads(said)["run"]["gpus"] == gpus


def test_dry_run_prints_the_configuration_and_writes_nothing(photographs, tmp_path):
    arguments = ["--outdir", tmp_path / "runs", "--cfg", "cats", "--data", photographs, "--dry-run"]
    result = run(*arguments, "--mirror", "true", "--aug", "ada", "--set", "loss.blur_sigma=3")
    config = json.loads(result.stdout)
    assert config["data"]["mirror"] is True and config["augment"]["mode"] == "ada"
    assert config["loss"] | {"gamma": 5.0, "blur_sigma": 3.0} == config["loss"]
    assert not (tmp_path / "runs").exists()


def test_starting_from_a_network_file_takes_its_weights(finished, toy_heads, tmp_path):
    network = finished / "network-000000.01.safetensors"
    arguments = ["--cfg", "toy", "--data", toy_heads, *tiny_arguments(), "--kimg", "0.004"]
    still = ["--set", "optim.g_lr=1e-12", "--set", "optim.d_lr=1e-12"]
    result = run("--outdir", tmp_path, *arguments, *still, "--resume", network)
    assert result.returncode == 0, result.stderr
    (folder,) = tmp_path.iterdir()
    new = safetensors.torch.load_file(folder / "network-000000.00.safetensors")
    old = safetensors.torch.load_file(network)
    name = "D.b8.conv0.weight"
    torch.testing.assert_close(new[name], old[name], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_starting_from_a_published_checkpoint(tmp_path):
    """Sizes and axes come by --set, as the file's own settings tell them; its weights are taken."""
    old, data = tmp_path / "old.pkl", write_photographs(tmp_path / "data", 2)
    old.write_bytes(bz2.decompress((ROOT / "tests/data/legacy/pof3d.pkl.bz2").read_bytes()))
    network = load_network(old)
    settings = network.config.model_dump(exclude={"preset", "data", "run"})
    chosen = [
        argument
        for section, fields in settings.items()
        for field, value in fields.items()
        for argument in ("--set", f"{section}.{field}={json.dumps(value)}")
    ]
    size = network.config.data.resolution
    start = ["--cfg", "custom", "--data", data, "--set", f"data.resolution={size}", "--batch", 1]
    start += ["--kimg", 0.001, "--workers", 0, "--resume", old]
    still = [*chosen, "--set", "optim.g_lr=1e-12", "--set", "optim.d_lr=1e-12"]
    result = run("--outdir", tmp_path / "runs", *start, *still)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    new = safetensors.torch.load_file(folder / "network-000000.00.safetensors")
    name = "decoder.net.0.weight"
    torch.testing.assert_close(
        new[f"G_ema.{name}"], network.generator.state_dict()[name], rtol=0, atol=1e-6
    )


def test_mistakes_get_one_clear_line(photographs, tmp_path):
    start = ["--outdir", tmp_path / "runs", "--cfg", "toy"]
    empty, corrupt, notes = tmp_path / "empty.zip", tmp_path / "corrupt", tmp_path / "notes.txt"
    zipfile.ZipFile(empty, "w").close()
    corrupt.mkdir()
    (corrupt / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    notes.write_text("not a zip")
    network = tmp_path / "bad.safetensors"
    network.write_bytes(b"\0" * 100)
    expected = {
        ("--data", tmp_path / "nowhere"): "no such data set",
        ("--data", empty): "no images in",
        ("--data", notes): "neither a folder nor a readable zip",
        ("--data", photographs, "--batch", 7, "--gpus", 2): "7 is not divisible by gpus 2",
        ("--data", photographs, "--batch", 8, "--batch-gpu", 3): "not divisible by batch_gpu 3",
        ("--data", photographs, "--set", "loss.gama=1"): "did you mean 'loss.gamma'",
        ("--data", photographs, "--set", "loss.gamma=x"): "should be a valid number",
        ("--data", photographs, "--set", "loss.gamma=1", "--gamma", 2): "given twice",
        ("--data", photographs, "--batch", "many"): "'many' is not a valid integer",
        ("--data", photographs, "--resume", network): "bad.safetensors is not a readable network",
        ("--data", photographs, "--resume", "latest"): "no run 'toy-discs",
        ("--data", photographs, "--resume", tmp_path / "gone"): "not a run folder",
        ("--data", photographs, "--precision", "fp16"): "needs CUDA",
        ("--data", ""): "--data is empty",
        ("--data", photographs, "--seed", 2**32): "run.seed",
        ("--data", photographs, "--seed", -1): "run.seed",
        ("--data", photographs, "--metrics", "releif"): "did you mean relief",
    }
    if not torch.cuda.is_available():
        expected[("--data", photographs, "--device", "cuda")] = "finds no CUDA device"
    for arguments, message in expected.items():
        assert message in complaint(*start, *arguments)
    assert not (tmp_path / "runs").exists()
    assert "needs --data" in complaint("--outdir", tmp_path, "--cfg", "cats")
    assert "broken.png" in complaint(*start, "--data", corrupt, "--batch", 1)
    (tmp_path / "file").write_text("")
    unwritable = ["--outdir", tmp_path / "file" / "runs", "--cfg", "toy", "--data", photographs]
    assert "choose another folder" in complaint(*unwritable)


@pytest.mark.parametrize("poses", ["dataset", "prior"])
def test_poses_from_elsewhere(poses, toy_heads, tmp_path):
    """The yardsticks: cameras from labels, as EG3D, or from a Gaussian that is given."""
    labeled = tmp_path / "labeled.zip"
    make_toy_dataset(labeled, 16, 32, seed=0, labels=True)
    arguments = ["--outdir", tmp_path / "runs", "--cfg", "toy", *tiny_arguments(), *SHORT]
    arguments += ["--poses", poses, "--set", "camera.prior_std=0.3,0.1"]
    if poses == "dataset":
        assert "has no camera labels" in complaint(*arguments, "--data", toy_heads)
    result = run(*arguments, "--data", labeled)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith(f"-{poses}_poses")
    record = json.loads((folder / "stats.jsonl").read_text().splitlines()[0])
    assert ("G/loss_mirrored" in record) == (poses == "prior")
    assert "G/pose_consistency" not in record
    source = load_network(folder / "network-000000.01.safetensors").generator.pose_source
    expected = load_ground_truth(labeled).pose.std(axis=0) if poses == "dataset" else (0.3, 0.1)
    assert source.std.tolist() == pytest.approx(list(expected), rel=0.05)


@pytest.mark.parametrize("ops", ["torch", "native"])
def test_one_option_chooses_the_operations(ops, photographs, tmp_path):
    arguments = ["--cfg", "toy", "--data", photographs, *tiny_arguments(), "--kimg", "0.004"]
    result = run("--outdir", tmp_path, *arguments, "--ops", ops, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert f"ops: triplane_render {ops}" in result.stdout


def test_at_most_thirty_options():
    """The command line is frozen: a new option is a decision."""
    names = {option.name for option in train.main.params}
    assert names == {
        *("outdir", "preset", "data", "gpus", "batch", "batch_gpu", "gamma", "kimg", "tick"),
        *("snap", "keep", "seed", "mirror", "aug", "workers", "device", "precision", "resume"),
        *("desc", "settings", "dry_run", "metrics", "poses", "ops", "help_settings"),
        *("geod", "geod_from", "with_ir", "wandb"),
    }


@pytest.mark.parametrize("script", ["ffhq.sh", "cats.sh", "shapenet_cars.sh"])
def test_dataset_scripts(script, photographs, tmp_path):
    without = subprocess.run([ROOT / script], capture_output=True, text=True)
    assert without.returncode == 2 and without.stderr.startswith("usage:")
    result = subprocess.run(
        [ROOT / script, photographs, "--gpus", "1", "--dry-run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["preset"] == script.removesuffix(".sh")


def test_metrics_are_measured_at_snapshots_and_change_nothing_else(finished, toy_heads, tmp_path):
    """One that cannot be measured is a warning; the weights are those of the run without."""
    arguments = ["--cfg", "toy", "--data", toy_heads, *tiny_arguments(), *SHORT]
    names = "pose_error,fid0.01k_full,pose_distribution"
    result = run(
        "--outdir",
        tmp_path,
        *arguments,
        "--metrics",
        names,
        POF3D_CACHE_DIR=tmp_path / "cache",
        https_proxy="http://127.0.0.1:9",
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / finished.name
    for name in ("pose_error", "pose_distribution"):
        lines = (folder / f"metric-{name}.jsonl").read_text().splitlines()
        networks = [json.loads(line)["snapshot_pkl"] for line in lines]
        assert set(networks) == {path.name for path in folder.glob("network-*")}
    assert (folder / "log.txt").read_text().count("WARNING: no fid0.01k_full (cannot download") == 2
    last = networks[-1]
    with_metrics, without = (
        safetensors.torch.load_file(each / last) for each in (folder, finished)
    )
    assert all(torch.equal(with_metrics[key], without[key]) for key in without)


def test_unknown_metrics_are_refused(toy_heads, tmp_path):
    arguments = ["--outdir", tmp_path, "--cfg", "toy", "--data", toy_heads]
    assert "did you mean relief" in complaint(*arguments, "--metrics", "releif")
    assert not list(tmp_path.iterdir())


def test_metrics_none_measures_nothing(toy_heads, tmp_path):
    arguments = ["--outdir", tmp_path, "--cfg", "toy", "--data", toy_heads, "--dry-run"]
    result = CliRunner().invoke(train.main, list(map(str, [*arguments, "--metrics", "none"])))
    assert json.loads(result.output)["run"]["metrics"] == []


def test_pictures_of_runs_are_never_trained_on(tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    arguments = ["--cfg", "toy", "--data", photographs, *tiny_arguments(), "--kimg", "0.004"]
    inside = complaint("--outdir", photographs / "runs", *arguments)
    assert "lies in the data" in inside and not (photographs / "runs").exists()


def test_resume_auto_starts_and_then_resumes(photographs, tmp_path):
    """One line for the first job of a chain and for all others."""
    arguments = ["--cfg", "toy", "--data", photographs, *tiny_arguments(), "--resume", "auto"]
    for kimg, steps in ((0.004, 1), (0.008, 2)):
        result = run("--outdir", tmp_path, *arguments, "--kimg", kimg)
        assert result.returncode == 0, result.stderr
        (folder,) = tmp_path.iterdir()
        state = torch.load(sorted(folder.glob("*.pt"))[-1], weights_only=True)
        assert state["trainer"]["steps"] == steps


def test_the_log_says_at_once_how_long_it_will_take(photographs, tmp_path):
    arguments = ["--cfg", "toy", "--data", photographs, *tiny_arguments(), "--kimg", "0.028"]
    result = run("--outdir", tmp_path, *arguments, "--tick", "0.028")
    assert result.returncode == 0, result.stderr
    (folder,) = tmp_path.iterdir()
    lines = (folder / "log.txt").read_text().splitlines()
    (estimate,) = (i for i, line in enumerate(lines) if "s per step: about" in line)
    (tick,) = (i for i, line in enumerate(lines) if "tick 1" in line)
    assert estimate < tick
    assert any("command line: " in line and "--kimg 0.028" in line for line in lines)
    assert any("12 images are few" in line and "--aug ada" in line for line in lines)


def test_help_settings_describes_every_setting():
    result = CliRunner().invoke(train.main, ["--help-settings"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    names = [line for line in lines if not line.startswith(" ")]
    assert len(names) == len(lines) / 2 > 80
    assert all(len(text.strip()) > 5 for text in lines[1::2])
    assert "loss.gamma=1.0" in names


def test_snapshots_may_be_rendered_larger_than_training(photographs, tmp_path):
    arguments = ["--cfg", "toy", "--data", photographs, *tiny_arguments(), "--kimg", "0.004"]
    result = run("--outdir", tmp_path, *arguments, "--set", "run.snapshot_resolution=40")
    assert result.returncode == 0, result.stderr
    (fakes, *_) = sorted(tmp_path.glob("*/fakes-*.png"))
    width, height = Image.open(fakes).size
    assert width % 40 == height % 40 == 0 and width * height == 32 * 40 * 40
