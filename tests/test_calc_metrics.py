"""calc_metrics.py: real networks, real data, one process and two."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from calc_metrics import main
from metrics.detectors import INCEPTION_URL
from metrics.registry import NAMES
from tests.helpers import PATIENCE, tiny_config, write_photographs
from tests.metrics.fakes import save_stand_in
from training.data.toy_set import make_toy_dataset
from training.files.network_file import save_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

ROOT = Path(__file__).parents[1]
HELP = CliRunner().invoke(main, ["--help"]).output
OF_VIEWS = "pose_error,pose_distribution,view_consistency,relief"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POF3D_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a network whose densities make something visible, and its toy set."""
    folder = tmp_path_factory.mktemp("run")
    make_toy_dataset(folder / "toy.zip", 40, 32, seed=0)
    config = tiny_config(folder / "toy.zip")
    torch.manual_seed(0)
    generator, discriminator = Generator(config), Discriminator(config)
    generator.decoder.net["2"].bias.data[0] += 30
    save_network(folder / "network-0001.safetensors", generator, discriminator, {})
    save_network(folder / "lonely.safetensors", generator, None, {})
    (folder / "config.json").write_text("{}")
    stand_in = save_stand_in(folder / "standin.pt")
    return SimpleNamespace(
        folder=folder, network=folder / "network-0001.safetensors", detector=str(stand_in)
    )


def calc(run, *arguments, network=None):
    fixed = [
        "--network",
        str(network or run.network),
        "--device",
        "cpu",
        "--detector",
        run.detector,
    ]
    return CliRunner().invoke(main, [*fixed, *map(str, arguments)])


def results(output: str) -> dict[str, float]:
    values = {}
    for line in output.splitlines():
        values |= json.loads(line)["results"]
    return values


def test_a_json_line_for_each_metric_on_stdout_and_in_the_run_folder(run):
    found = calc(run, "--metrics", f"fid50k_full,{OF_VIEWS}", "--num-gen", 20)
    assert found.exit_code == 0, found.stderr
    records = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(records) == 5
    for record in records:
        assert record["snapshot_pkl"] == "network-0001.safetensors"
        path = run.folder / f"metric-{record['metric']}.jsonl"
        assert json.loads(path.read_text().splitlines()[-1]) == record
    assert records[0]["metric"].startswith("fd0.02k_full-standin-")
    assert records[0]["results"][records[0]["metric"]] > 0


def test_same_command_same_numbers(run):
    arguments = ("--metrics", f"fid50k_full,{OF_VIEWS}", "--num-gen", 20)
    first, again = (results(calc(run, *arguments).stdout) for _ in range(2))
    assert first == again


def test_two_processes_give_the_numbers_of_one(run):
    """35 is no multiple of the batch, and the batches are no multiple of the processes."""
    names = f"fid50k_full,kid50k_full,pr50k3_full,identity_consistency,{OF_VIEWS}"
    arguments = ["--metrics", names, "--num-gen", "35"]
    alone = results(calc(run, *arguments).stdout)
    command = [sys.executable, "calc_metrics.py", "--network", str(run.network)]
    command += ["--detector", run.detector, "--device", "cpu", "--gpus", "2", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["num_gpus"] == 2
    together = results(done.stdout)
    assert together.keys() == alone.keys() and len(alone) > 20
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_an_error_in_one_of_two_processes_ends_both_in_one_line(run, tmp_path):
    photographs = write_photographs(tmp_path / "photographs", count=40)
    # Batches alternate between the processes; a single broken image is in one of them.
    (photographs / "020.png").write_bytes(b"broken")
    command = [sys.executable, "calc_metrics.py", "--network", str(run.network), "--gpus", "2"]
    command += [
        "--detector",
        run.detector,
        "--data",
        str(photographs),
        "--metrics",
        "fid0.02k_full",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error:"))
    assert "020.png" in line and "Traceback" not in done.stderr


def test_options_change_what_is_measured(run, tmp_path):
    def value(*arguments):
        (line,) = calc(run, *arguments).stdout.splitlines()
        return json.loads(line)

    base = value("--metrics", "fid0.02k")
    assert value("--metrics", "fid0.02k", "--num-gen", 30)["metric"] > base["metric"]
    numbers = [
        next(iter(value("--metrics", "fid0.08k", *extra)["results"].values()))
        for extra in (
            [],
            ["--mirror", "true"],
            ["--data", write_photographs(tmp_path / "photographs")],
        )
    ]
    assert len(set(numbers)) == 3
    whole = [
        value("--metrics", "fid0.02k_full", *extra)["results"] for extra in ([], ["--mirror", "1"])
    ]
    assert whole[0] == whole[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "fid50k_ful"], "unknown metric 'fid50k_ful'"),
        (["--network", "none.pkl"], "does not exist"),
        (["--data", "nowhere.zip"], "no such data set"),
        (["--detector", "nothing.pt"], "no detector nothing.pt"),
        (["--device", "cuda"], "no CUDA device"),
        (["--metrics", "none,relief"], "unknown metric 'none'"),
    ],
)
def test_mistakes_get_one_line(run, arguments, message):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("here CUDA is no mistake")
    found = calc(run, *arguments)
    assert found.exit_code == 1 and found.stdout == ""
    assert message in found.stderr and len(found.stderr.strip().splitlines()) == 1


def test_what_can_be_measured_is_although_other_metrics_fail(run, tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    found = calc(run, "--metrics", "pose_error,relief", "--num-gen", 4, "--data", photographs)
    assert found.exit_code == 1 and "pose_error: the poses of this data set" in found.stderr
    assert "relief" in results(found.stdout)
    without = calc(run, "--metrics", "pose_error", network=run.folder / "lonely.safetensors")
    assert without.exit_code == 1 and "no discriminator" in without.stderr


def test_without_network_fid_says_how_to_get_inception(run, monkeypatch):
    def refuse(*_, **__):
        raise OSError("unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    found = CliRunner().invoke(main, ["--network", str(run.network), "--metrics", "fid50k_full"])
    assert found.exit_code == 1
    assert INCEPTION_URL in found.stderr and len(found.stderr.strip().splitlines()) == 1


def test_outside_a_run_folder_nothing_is_written(run, tmp_path):
    copy = tmp_path / "network.safetensors"
    copy.write_bytes(run.network.read_bytes())
    assert calc(run, "--metrics", "relief", "--num-gen", 4, network=copy).exit_code == 0
    assert list(tmp_path.iterdir()) == [copy]


def test_a_run_folder_stands_for_its_newest_network(run):
    found = calc(run, "--metrics", "relief", "--num-gen", 4, network=run.folder)
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["snapshot_pkl"] == "network-0001.safetensors"


def test_none_measures_nothing(run):
    found = calc(run, "--metrics", "none")
    assert (found.exit_code, found.stdout, found.stderr) == (0, "", "")


def test_a_run_folder_that_cannot_be_written_costs_a_warning(run, tmp_path):
    network = tmp_path / "network-0001.safetensors"
    network.write_bytes(run.network.read_bytes())
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metric-relief.jsonl").mkdir()  # for root, permissions are none
    found = calc(run, "--metrics", "relief", "--num-gen", 4, network=network)
    assert found.exit_code == 0 and "relief" in results(found.stdout)
    assert found.stderr == f"WARNING: no relief in {tmp_path} (Is a directory)\n"


def test_numbers_of_too_few_images_are_refused_and_not_nan(run, tmp_path):
    one = write_photographs(tmp_path / "one", count=1)
    found = calc(run, "--metrics", "kid50k_full,fid50k_full", "--num-gen", 8, "--data", one)
    assert found.exit_code == 1 and "needs at least 2 photographs and 2 samples" in found.stderr
    (line,) = found.stdout.splitlines()
    assert all(math.isfinite(value) for value in json.loads(line)["results"].values())


def test_out_of_memory_names_the_options_that_help(run, monkeypatch):
    def starve(*_):
        return torch.empty(1 << 48, dtype=torch.uint8)

    monkeypatch.setattr("training.evaluation.measuring.load_network", starve)
    found = calc(run, "--metrics", "relief")
    assert found.exit_code == 1 and found.stderr == (
        "Error: out of memory (256 TiB more were asked for); a lower --num-gen or --device cpu "
        "needs less\n"
    )


def test_help_names_every_metric_and_imports_nothing_heavy():
    text = "".join(HELP.split())
    assert all(name in text for name in NAMES if not name.startswith("identity_consistency-"))
    program = (
        "import sys, pof3d.commands.calc_metrics\n"
        "print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n"
