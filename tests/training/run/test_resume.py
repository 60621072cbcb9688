"""Interrupted training goes on as if nothing had happened, whatever interrupted it."""

import contextlib
import io
import itertools
import json
import multiprocessing
import os
import pkgutil
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple
from unittest import mock

import psutil
import pytest
import safetensors
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gen_samples_pose
from benchmarks.kill_drill import same
from dnnlib import UserError
from tests.helpers import (
    PATIENCE,
    tiny_arguments,
    tiny_config,
    wait_until,
    write_photographs,
)
from torch_utils import distributed
from training.config import Config
from training.files.network_file import load_network
from training.run import checkpoint, loop
from training.run.checkpoint import load_checkpoint
from training.run.loop import train
from training.run.run_folder import checkpoints, locked
from training.step import Trainer

ROOT = Path(__file__).parents[3]
# Everything that has a state of its own is on, and p of ADA moves often.
CHANCE = {
    "augment__mode": "ada",
    "augment__every": 2,
    "augment__kimg": 0.04,
    "augment__target": 0.0,
    "augment__color_p": 0.5,
    "generator__style_mixing": 0.5,
    "generator__diversity_clarity": 0.0,
    "generator__depth_trial_kimg": "0.008,0.008",
    "camera__spread_rate": 50,
    "loss__pose_anchor_weight": 1.0,
    "loss__blur_sigma": 2.0,
    "loss__blur_kimg": 0.2,
    "run__keep": 9,
}
# Steps of 4 images; ticks end after steps 2, 4, 6 and 7, the last with the run.
STEPS = 7
LENGTH = {"run__kimg": STEPS * 4 / 1000, "run__tick": 0.008, "run__snap": 2}
UNREPEATABLE = {"time", "sec_per_kimg", "memory_gb", "data_wait", "gradient_mb"}


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(loop, "snapshot_pictures", lambda *_, **__: {})


def contents(folder: Path) -> dict[Path, int]:
    """The checkpoints of a folder, and a hash of each."""
    return {path: hash(path.read_bytes()) for path in checkpoints(folder)}


def settings(photographs: Path, **changes) -> Config:
    return tiny_config(photographs, **(CHANCE | LENGTH | {"data__workers": 1} | changes))


def run(config: Config, folder: Path, resume: Path | None = None, **stop: int) -> int | None:
    """`train`; with stop_at=n, SIGTERM arrives while step n (from 1) is being computed."""
    folder.mkdir(exist_ok=True)
    compute = Trainer.step

    def step(trainer: Trainer) -> None:
        if trainer.steps + 1 == stop.get("stop_at"):
            os.kill(os.getpid(), stop.get("signal", signal.SIGTERM))
        compute(trainer)

    with mock.patch.object(Trainer, "step", step):
        return train(config, folder, resume)


def records(folder: Path) -> list[dict]:
    lines = (folder / "stats.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in UNREPEATABLE}
        for line in lines
    ]


def stored(network: Path) -> dict:
    """All of a network file but the version of the code, which may change while tests run."""
    with safetensors.safe_open(network, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    provenance = json.loads(metadata["provenance"]) | {"code": None}
    return tensors | metadata | {"provenance": provenance}


def assert_same_run(folder: Path, expected: Path) -> None:
    """The last checkpoints hold the same, and so do the statistics and the network files."""
    newest, wanted = checkpoints(folder)[0], checkpoints(expected)[0]
    assert newest.name == wanted.name
    found, wanted = load_checkpoint(newest), load_checkpoint(wanted)
    assert found.keys() == wanted.keys() and found["trainer"].keys() == wanted["trainer"].keys()
    different = [key for key in found if not same(found[key], wanted[key])]
    parts = [x for x in found["trainer"] if not same(found["trainer"][x], wanted["trainer"][x])]
    assert not different, (different, parts)
    assert records(folder) == records(expected)
    for network in expected.glob("*.safetensors"):
        assert same(stored(folder / network.name), stored(network)), network.name


# Exact


@pytest.fixture(scope="module")
def uninterrupted(photographs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(settings(photographs), folder)
    return folder


def test_the_reference_run_moves_all_that_can_move(uninterrupted):
    """Otherwise the comparisons below would prove little."""
    assert len(records(uninterrupted)) == 4
    states = [load_checkpoint(path)["trainer"] for path in checkpoints(uninterrupted)[:2]]
    for part in states[0].keys() - {"batch", "bad_steps", "precision", "stats", "threads"}:
        assert not same(states[0][part], states[1][part]), part
    assert 0 < records(uninterrupted)[-1]["augment/p"] < 1


@pytest.mark.parametrize("stop_at", range(1, STEPS))
def test_cut_after_any_step(photographs, uninterrupted, tmp_path, without_pictures, stop_at):
    config = settings(photographs)
    assert run(config, tmp_path, stop_at=stop_at) == signal.SIGTERM
    assert load_checkpoint(checkpoints(tmp_path)[0])["trainer"]["steps"] == stop_at
    assert run(config, tmp_path) is None
    assert_same_run(tmp_path, uninterrupted)


def test_cut_while_reversed_depth_is_tried(
    photographs, uninterrupted, tmp_path, without_pictures, monkeypatch
):
    """After step 4 training goes back to step 2; the signal comes in the step after that."""
    compute, steps = Trainer.step, []

    def step(trainer: Trainer) -> None:
        steps.append(trainer.steps)
        if steps == [0, 1, 2, 3, 2]:
            os.kill(os.getpid(), signal.SIGTERM)
        compute(trainer)

    monkeypatch.setattr(Trainer, "step", step)
    assert train(settings(photographs), tmp_path) == signal.SIGTERM
    assert load_checkpoint(checkpoints(tmp_path)[0])["trainer"]["steps"] == 4
    assert train(settings(photographs), tmp_path) is None
    assert steps == [0, 1, 2, 3, 2, 2, 3, 4, 5, 6]
    assert_same_run(tmp_path, uninterrupted)


def test_another_number_of_threads(photographs, tmp_path, without_pictures, capfd):
    """Threads share sums among them, which rounds differently: a run keeps its own number."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with threads(2):
        run(settings(photographs), whole)
        run(settings(photographs), cut, stop_at=3)
    with threads(1):
        run(settings(photographs), cut)
    assert "2 threads as before, not 1" in capfd.readouterr().out
    assert_same_run(cut, whole)


def test_cut_many_times_with_pictures(photographs, uninterrupted, tmp_path):
    """Drawing pictures of a snapshot draws nothing from training's chance."""
    config = settings(photographs)
    for stop_at in (1, 2, 4, 5):
        assert run(config, tmp_path, stop_at=stop_at, signal=signal.SIGINT) == signal.SIGINT
    assert run(config, tmp_path) is None
    assert_same_run(tmp_path, uninterrupted)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        path.name for path in uninterrupted.glob("*.png")
    }
    log = (tmp_path / "log.txt").read_text()
    assert log.count("stopped at") == log.count("resuming from") == 4
    assert "to go on, run the same command with --resume latest" in log


@pytest.mark.slow
def test_cut_while_the_raw_resolution_grows(tmp_path, without_pictures):
    photographs = write_photographs(tmp_path / "photographs", resolution=128)
    sizes = {"data__resolution": 128, "discriminator__dual": True, "run__batch": 2}
    growth = {"resolution": 16, "resolution_end": 24, "growth_kimg": 0.008}
    growth = {f"rendering__raw_{name}": value for name, value in growth.items()}
    length = {"run__kimg": 0.008, "run__tick": 0.004, "run__snap": 1}
    config = settings(photographs, **sizes, **growth, **length)
    run(config, tmp_path / "whole")
    assert run(config, tmp_path / "cut", stop_at=3)
    run(config, tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def in_two_processes(photographs: Path, folder: Path) -> None:
    """Whole; cut in mid-tick by a signal that the second process alone receives; resumed."""
    torch.set_num_threads(1)
    length = {"run__kimg": 0.02, "run__tick": 0.012, "run__snap": 1}
    config = settings(photographs, **length, run__gpus=2)
    with mock.patch.object(loop, "snapshot_pictures", return_value={}):
        assert run(config, folder / "whole") is None
        stop = {"stop_at": 2} if distributed.rank() == 1 else {}
        assert run(config, folder / "cut", **stop) == signal.SIGTERM
        assert run(config, folder / "cut") is None


@pytest.fixture(scope="module")
def two_processes(photographs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "whole").mkdir()
    (folder / "cut").mkdir()
    distributed.launch(in_two_processes, 2, "cpu", photographs, folder)
    return folder


def test_two_processes(two_processes):
    assert_same_run(two_processes / "cut", two_processes / "whole")
    state = load_checkpoint(checkpoints(two_processes / "whole")[0])["trainer"]
    first, second = state["random"]["cpu"]
    assert not torch.equal(first, second)


def test_another_number_of_processes_goes_on_from_the_same_weights(
    photographs, two_processes, tmp_path, without_pictures, capfd
):
    newest = checkpoints(two_processes / "whole")[0]
    shutil.copy(newest, tmp_path)
    steps = load_checkpoint(newest)["trainer"]["steps"]
    still = {"optim__g_lr": 1e-12, "optim__d_lr": 1e-12}
    config = settings(photographs, run__kimg=(steps + 1) * 4 / 1000, run__tick=0.012, **still)
    assert run(config, tmp_path) is None
    said = capfd.readouterr().out
    assert "2 process(es) wrote the checkpoint and 1 resume it: weights and optimizers" in said
    after = load_checkpoint(checkpoints(tmp_path)[0])["trainer"]
    assert after["steps"] == steps + 1
    before = load_checkpoint(newest)["trainer"]
    for name, weight in before["D"].items():
        torch.testing.assert_close(after["D"][name], weight, rtol=0, atol=1e-6)


# The folder


@pytest.fixture
def stopped(photographs, uninterrupted, tmp_path) -> Path:
    """A copy of the whole run's folder; its checkpoints are 0.016 and 0.028 kimg old."""
    shutil.copytree(uninterrupted, tmp_path / "copy")
    return tmp_path / "copy"


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "a bit flipped":
        data[len(data) // 2] ^= 1
    replaced = {"cut off": data[: len(data) // 2], "empty": b"", "other content": b"PK? " * 1000}
    if how == "another state":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes(replaced.get(how, data))


@pytest.mark.parametrize(
    "how", ["a bit flipped", "cut off", "empty", "other content", "another state"]
)
def test_a_damaged_newest_checkpoint(
    photographs, stopped, uninterrupted, without_pictures, how, capfd
):
    newest, before = checkpoints(stopped)
    damage(newest, how)
    assert run(settings(photographs, run__keep=1), stopped) is None
    said = capfd.readouterr().out
    complaint = "is not a training checkpoint" if how == "another state" else "is damaged"
    assert f"WARNING: {newest} {complaint}" in said and f"resuming from {before}" in said
    assert records(stopped) == records(uninterrupted)
    assert checkpoints(stopped) == [newest], "the good one stays, not the damaged one"
    assert load_checkpoint(newest)["trainer"]["steps"] == STEPS
    assert (stopped / f"unused-{newest.name}").exists()


def test_no_checkpoint_is_whole(photographs, stopped):
    for path in checkpoints(stopped):
        damage(path, "cut off")
    with pytest.raises(UserError, match="start the run anew"):
        train(settings(photographs), stopped)


def test_going_back_to_an_earlier_checkpoint(
    photographs, stopped, uninterrupted, without_pictures, capfd
):
    newest, before = checkpoints(stopped)
    (stopped / ".checkpoint-000000.02.pt.abc.tmp").write_text("of a killed process")
    with open(stopped / "stats.jsonl", "a") as file:
        file.write('{"tick": 5, "ki')
    assert run(settings(photographs), stopped, before, stop_at=5) == signal.SIGTERM
    said = capfd.readouterr().out
    assert f"{newest.name} is kept as unused-{newest.name}" in said
    assert not list(stopped.glob(".*.tmp"))
    assert records(stopped) == records(uninterrupted)[:2]
    assert run(settings(photographs), stopped) is None
    assert_same_run(stopped, uninterrupted)


def test_tensorboard_shows_each_tick_once(photographs, stopped, without_pictures):
    run(settings(photographs), stopped, checkpoints(stopped)[1])
    events = EventAccumulator(str(stopped)).Reload().Scalars("D/loss_real")
    assert [event.step for event in events] == [8, 16, 24, 28]


def test_only_the_newest_checkpoints_are_kept(photographs, tmp_path, without_pictures):
    run(settings(photographs, run__keep=2, run__snap=1, run__batch=10, run__kimg=0.05), tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == [
        "checkpoint-000000.05.pt",
        "checkpoint-000000.04.pt",
    ]


def test_changed_settings_are_named_and_count(photographs, stopped, without_pictures, capfd):
    changes = {"optim__g_lr": 0.001, "run__kimg": 0.036}
    run(settings(photographs, **changes), stopped)
    said = capfd.readouterr().out
    assert "optim.g_lr changes from 0.0025 to 0.001" in said
    assert "run.kimg changes from 0.028 to 0.036" in said
    (group,) = load_checkpoint(checkpoints(stopped)[0])["trainer"]["g_optimizer"]["param_groups"]
    assert group["lr"] == pytest.approx(0.001 * 4 / 5)


def test_a_setting_younger_than_the_checkpoint_is_named(
    photographs, stopped, without_pictures, capfd
):
    newest = checkpoints(stopped)[0]
    state = load_checkpoint(newest)
    config = json.loads(state["config"])
    del config["loss"]["pose_entropy_weight"]
    torch.save(state | {"config": json.dumps(config)}, newest)
    run(settings(photographs, loss__pose_entropy_weight=0.5), stopped)
    assert "loss.pose_entropy_weight changes from 0.0 to 0.5" in capfd.readouterr().out


def test_what_does_not_fit_is_refused(photographs, stopped):
    with pytest.raises(UserError, match="the run's batch is 4: add --batch 4"):
        train(settings(photographs, run__batch=8), stopped)
    with pytest.raises(UserError, match="the checkpoint's D does not fit.*size mismatch"):
        train(settings(photographs, discriminator__channel_max=4), stopped)


def test_a_finished_run_has_nothing_left_to_do(photographs, stopped, capfd):
    before = contents(stopped)
    assert run(settings(photographs), stopped) is None
    assert "0.03 kimg are done already: --kimg takes it further" in capfd.readouterr().out
    assert contents(stopped) == before


# A full disk


@contextlib.contextmanager
def full_disk(size: int = 2500) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes: it fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_training_survives_a_full_disk(photographs, stopped, uninterrupted, capfd):
    """Nothing could be written for two ticks; then there is room again."""
    before = contents(stopped)
    # No worker processes: they hand over images in files that the limit would reach, too.
    longer = settings(photographs, run__kimg=0.044, run__snap=1, data__workers=0)
    with full_disk(), pytest.raises(UserError, match="the state at 0.04 kimg could not be written"):
        run(longer, stopped, stop_at=10)
    said = capfd.readouterr().out
    assert said.count(f"WARNING: could not write to {stopped} (File too large); going on") > 3
    assert contents(stopped) == before
    assert not list(stopped.glob(".*.tmp"))
    assert records(stopped) == records(uninterrupted)
    assert run(longer, stopped) is None
    assert load_checkpoint(checkpoints(stopped)[0])["trainer"]["steps"] == 11


def test_a_run_whose_end_could_not_be_written_fails(photographs, stopped):
    longer = settings(photographs, run__kimg=0.032, data__workers=0)
    message = "the state at 0.03 kimg could not be written .*: make room, then --resume latest"
    with full_disk(), pytest.raises(UserError, match=message):
        train(longer, stopped)


def test_a_full_disk_stops_training_that_wants_it(photographs, stopped):
    before = contents(stopped)
    stop = {"run__write_errors": "stop", "data__workers": 0}
    stops = settings(photographs, run__kimg=0.044, **stop)
    with full_disk(), pytest.raises(UserError, match="File too large.: make room, then use --resu"):
        train(stops, stopped)
    assert contents(stopped) == before


# Checkpoints beside training


def test_training_does_not_wait_for_a_checkpoint(
    photographs, uninterrupted, tmp_path, without_pictures
):
    """Written only when two more steps are done, it holds the state of its own time."""
    steps_done, waited_for = threading.Event(), []
    compute, write = Trainer.step, checkpoint.save_checkpoint

    def step(trainer: Trainer) -> None:
        compute(trainer)
        if trainer.steps == 6:
            steps_done.set()

    def write_late(path: Path, *args) -> None:
        if "0.02" in path.name:  # after step 4
            waited_for.append(steps_done.wait(timeout=PATIENCE))
        write(path, *args)

    with (
        mock.patch.object(Trainer, "step", step),
        mock.patch.object(checkpoint, "save_checkpoint", write_late),
    ):
        train(settings(photographs), tmp_path)
    assert waited_for == [True]
    assert_same_run(tmp_path, uninterrupted)
    late, wanted = (checkpoints(folder)[1] for folder in (tmp_path, uninterrupted))
    assert late.name == wanted.name == "checkpoint-000000.02.pt"
    assert same(load_checkpoint(late), load_checkpoint(wanted))


def test_checkpoints_by_time_change_nothing(photographs, uninterrupted, tmp_path, without_pictures):
    changes = {"run__checkpoint_minutes": 1e-9, "run__batch": 10, "run__kimg": 0.07}
    run(settings(photographs, **changes | {"run__tick": 0.07}), tmp_path / "often")
    states = [load_checkpoint(path)["trainer"] for path in checkpoints(tmp_path / "often")]
    assert [state["steps"] for state in states] == [7, 6, 5, 4, 3, 2, 1, 0]
    changes["run__checkpoint_minutes"] = 60
    run(settings(photographs, **changes | {"run__tick": 0.07}), tmp_path / "seldom")
    assert len(checkpoints(tmp_path / "seldom")) == 1
    found = load_checkpoint(checkpoints(tmp_path / "seldom")[0])["trainer"]
    assert same(found, states[0])


def test_a_checkpoint_that_fails_beside_training_stops_a_run_that_wants_it(
    photographs, tmp_path, without_pictures
):
    """At the next step, not at the next checkpoint."""
    changes = {"run__write_errors": "stop", "run__kimg": 0.4, "run__tick": 0.4}
    config = settings(photographs, **changes, run__checkpoint_minutes=1e-3)
    full = OSError(28, "No space left on device")
    with (
        mock.patch.object(checkpoint, "save_checkpoint", side_effect=full) as save,
        pytest.raises(UserError, match="No space left on device.: make room"),
    ):
        run(config, tmp_path)
    assert save.call_count == 1


# Photographs that break


def test_a_photograph_that_breaks_while_training_costs_no_step(tmp_path, without_pictures):
    photographs = write_photographs(tmp_path / "photographs")
    folder = tmp_path / "run"
    folder.mkdir()
    config = settings(photographs, run__kimg=0.4, run__tick=0.4, data__workers=0)

    def step(trainer: Trainer, step=Trainer.step) -> None:
        step(trainer)
        if trainer.steps == 2:
            for path in photographs.iterdir():
                path.write_bytes(b"no longer a picture")

    with (
        mock.patch.object(Trainer, "step", step),
        pytest.raises(UserError, match=r"cannot read image.*; training up to 0.0. kimg is saved"),
    ):
        train(config, folder)
    saved = load_checkpoint(checkpoints(folder)[0])["trainer"]["steps"]
    write_photographs(photographs)
    assert run(config, folder, stop_at=saved + 1) == signal.SIGTERM
    assert load_checkpoint(checkpoints(folder)[0])["trainer"]["steps"] == saved + 1 >= 3


# Two processes that resume one run


def test_a_folder_is_trained_in_by_one_run_at_a_time(photographs, stopped):
    with locked(stopped), pytest.raises(UserError, match="another process is training in"):
        train(settings(photographs, run__kimg=0.044), stopped)


# A killed process


def killed_at(moment: "Moment", config: Config, folder: Path) -> None:
    """Train, and die by SIGKILL where the moment says."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of data loaders, as in train.py
    calls = itertools.count(1)
    owner, _, name = moment.function.rpartition(".")
    original = getattr(pkgutil.resolve_name(owner), name)

    def deadly(*args, **kwargs):
        if next(calls) < moment.call:
            return original(*args, **kwargs)
        if moment.when == "after":
            original(*args, **kwargs)
        elif moment.when == "halfway":
            write_half(original, *args)
        os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch.object(loop, "snapshot_pictures", lambda *_, **__: {}):
        with mock.patch(moment.function, deadly):
            run(config, folder)


def write_half(write, *args) -> None:
    """torch.save(record, file) or append_line(path, line), broken off."""
    if write.__name__ == "save":
        record, file = args
        write(record, whole := io.BytesIO())
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
    else:
        path, line = args
        with open(path, "a") as file:
            file.write(line[: len(line) // 2])


class Moment(NamedTuple):
    """A call of a function, by its name and the number of calls in this process."""

    function: str
    call: int
    when: Literal["before", "halfway", "after"]


MOMENTS = [
    Moment("training.run.loop.Trainer._update", 1, "before"),
    Moment("training.run.loop.Trainer._update", 4, "after"),
    Moment("training.run.loop.StopSignals.__enter__", 1, "after"),
    Moment("training.run.loop.Reporter", 1, "after"),
    Moment("torch.save", 1, "halfway"),
    Moment("training.run.loop.Trainer._update", 8, "before"),
    Moment("os.replace", 3, "before"),  # config.json, a network, then the checkpoint
    Moment("os.replace", 3, "after"),
    Moment("training.run.loop.Run._save_checkpoint", 1, "before"),
    Moment("os.fsync", 3, "before"),  # of a network; 1 and 2 are those of config.json
    Moment("os.fsync", 5, "before"),  # of the checkpoint
    Moment("os.fsync", 6, "after"),  # of the folder, after the checkpoint's rename
    Moment("safetensors.torch.save", 1, "after"),
    Moment("torch.save", 2, "halfway"),
    Moment("training.run.reporting.append_line", 4, "halfway"),  # in log.txt
    Moment("training.run.reporting.append_line", 7, "halfway"),  # in stats.jsonl
    Moment("pathlib.Path.unlink", 3, "before"),
    Moment("training.run.loop.Run._save_pictures", 1, "before"),
    Moment("training.run.checkpoint.load_checkpoint", 1, "after"),
    Moment("training.run.loop.Trainer._update", 9, "after"),
]


@pytest.mark.slow
def test_killed_at_twenty_moments(photographs, tmp_path, without_pictures):
    """Each time the run is resumed where it was killed; in the end nothing is to be seen of it."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["training.run.loop"])
    length = {"run__batch": 10, "run__kimg": 0.2, "run__tick": 0.02, "run__snap": 1}
    config = settings(photographs, **length, run__keep=2)
    with threads(1):  # as in the processes to be killed
        run(config, tmp_path / "whole")
    folder = tmp_path / "killed"
    for moment in MOMENTS:
        process = processes.Process(target=killed_at, args=(moment, config, folder))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL, moment
        for path in checkpoints(folder):
            load_checkpoint(path)
        for path in folder.glob("network-*.safetensors"):
            load_network(path)
    run(config, folder)
    assert_same_run(folder, tmp_path / "whole")
    assert not list(folder.glob(".*.tmp")) and not list(folder.glob("unused-*"))
    assert len(checkpoints(folder)) == 2


# Signals, by the command line


def command(photographs: Path, outdir: Path, *options: str, launcher: tuple = ()) -> list[str]:
    """A run that outlasts its test, but not by hours if nobody ends it."""
    start = [sys.executable, *launcher, str(ROOT / "train.py"), "--outdir", str(outdir)]
    lasting = ["--cfg", "toy", "--data", str(photographs), "--device", "cpu", "--aug", "ada"]
    return [*start, *lasting, *tiny_arguments(), "--kimg", "2", "--tick", "0.04", *options]


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@contextlib.contextmanager
def training(arguments: list[str], outdir: Path) -> Iterator[subprocess.Popen]:
    """A process that has ended its first tick; killed, with all that it started, in the end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(arguments, env=environment, start_new_session=True, **pipes)
    try:
        wait_until(lambda: process.poll() is not None or list(outdir.glob("*/stats.jsonl")))
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def trained_steps(folder: Path) -> int:
    return load_checkpoint(checkpoints(folder)[0])["trainer"]["steps"]


def folder_in(outdir: Path) -> Path:
    (folder,) = outdir.iterdir()
    return folder


def assert_goes_on(arguments: list[str], outdir: Path) -> None:
    """The same command with --resume latest trains for one more step in the same folder."""
    folder = folder_in(outdir)
    steps = trained_steps(folder)
    until = ["--kimg", str((steps + 1) * 4 / 1000), "--resume", "latest"]
    finished = subprocess.run([*arguments, *until], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert folder_in(outdir) == folder and trained_steps(folder) == steps + 1


@pytest.mark.parametrize(
    "processes, number, to_all",
    [
        (1, signal.SIGINT, True),
        pytest.param(1, signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGUSR1, False, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGINT, True, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGTERM, True, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGTERM, False, marks=pytest.mark.slow),
    ],
)
def test_signals_stop_the_command(photographs, tmp_path, processes, number, to_all):
    """Sent to the first process, or to all, data loaders too, as Ctrl-C and schedulers do."""
    arguments = command(photographs, tmp_path, "--gpus", str(processes), "--workers", "1")
    with training(arguments, tmp_path) as process:
        (os.killpg if to_all else os.kill)(process.pid, number)
        said, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, errors
    assert "--resume latest" in said.splitlines()[-1] and "Traceback" not in errors
    assert_goes_on(arguments, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_torchrun(photographs, tmp_path, number):
    arguments = command(photographs, tmp_path, "--gpus", "2", launcher=TORCHRUN)
    with training(arguments, tmp_path) as process:
        process.send_signal(number)
        said, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert said.count("run folder:") == said.count("stopped at") == 1, errors
    assert_goes_on(arguments, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["--gpus 2", "torchrun"])
def test_the_death_of_a_process_ends_the_run(photographs, tmp_path, launcher):
    arguments = command(photographs, tmp_path, "--gpus", "2", launcher=launcher)
    with training(arguments, tmp_path) as process:
        workers = [child for child in psutil.Process(process.pid).children() if trains(child)]
        assert len(workers) == 2
        workers[1].kill()
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode not in (0, None)
    if not launcher:  # what is noticed first: its end, or its silence
        assert re.fullmatch(
            "Error: process 1 (terminated with signal SIGKILL, the others were stopped|on .* went "
            "silent).*--resume (latest|auto)",
            errors.splitlines()[-1],
        )


def trains(process: psutil.Process) -> bool:
    """Neither a data loader nor a helper of multiprocessing."""
    line = " ".join(process.cmdline())
    return "spawn_main" in line or line.endswith("0.04 --gpus 2")


@pytest.mark.slow
def test_a_killed_and_resumed_run_samples_the_same_image(photographs, tmp_path):
    """Two ticks, killed, resumed, its network sampled from: the image of the uninterrupted run."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ticks = ["--tick", "0.02", "--snap", "1", "--workers", "1", "--kimg", "0.08"]
    arguments = [command(photographs, outdir, *ticks) for outdir in (whole, killed)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as in `training`
    subprocess.run(arguments[0], check=True, capture_output=True, env=one_thread)
    with training(arguments[1], killed):
        wait_until(lambda: len(list(killed.glob("*/checkpoint-*.pt"))) >= 2)
    subprocess.run([*arguments[1], "--resume", "latest"], check=True, capture_output=True)
    images = []
    for outdir in (whole, killed):
        network = folder_in(outdir) / "network-000000.08.safetensors"
        gen_samples_pose.main(
            ["--network", str(network), "--outdir", str(outdir / "out"), "--seeds", "0-1"],
            standalone_mode=False,
        )
        images.append({x.name: x.read_bytes() for x in (outdir / "out").glob("*.png")})
    assert len(images[0]) >= 2 and images[0] == images[1]
