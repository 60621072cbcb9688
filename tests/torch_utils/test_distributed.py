"""Several processes that know each other, and what happens when one of them fails."""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from dnnlib import OutOfMemory, UserError
from tests.helpers import PATIENCE
from torch_utils import distributed
from torch_utils.training_stats import Stat, StatsCollector


def test_alone_everything_is_its_own_answer():
    tensor = torch.tensor([1.0, 2.0])
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.all_reduce_sum(tensor.clone()).tolist() == [1, 2]
    assert distributed.all_reduce_mean(tensor.clone()).tolist() == [1, 2]
    assert distributed.gather_on_first(tensor) == [tensor]
    assert distributed.largest(3) == 3
    assert distributed.from_first(lambda: "mine") == "mine"
    assert distributed.launch(lambda x: x + 1, 1, "cpu", 41) == 42
    distributed.barrier()


def answers() -> list[dict]:
    """What each function gives to both processes."""
    rank = distributed.rank()
    mine = torch.tensor([1.0, 2.0]) + 10 * rank
    gathered = distributed.gather_on_first(mine)
    found = {
        "place": (rank, distributed.world_size()),
        "sum": distributed.all_reduce_sum(mine.clone()).tolist(),
        "mean": distributed.all_reduce_mean(mine.clone()).tolist(),
        "gathered": gathered and [tensor.tolist() for tensor in gathered],
        "largest": distributed.largest(5 + rank),
        "made": distributed.from_first(lambda: f"by {rank}"),
        "statistics": statistics(rank),
    }
    try:
        distributed.from_first(lambda: refuse("the first one refuses"))
    except UserError as error:
        found["refused"] = str(error)
    both = [{}, {}]
    torch.distributed.all_gather_object(both, found)
    return both


def statistics(rank: int) -> dict[str, Stat]:
    """Reported by both, saved in the middle, and taken up by a new collector."""
    stats, resumed = StatsCollector(), StatsCollector()
    stats.report("b", torch.tensor([1.0, 3.0]) + 4 * rank)
    stats.report("a", rank)
    state = [stats.state_dict()]
    torch.distributed.broadcast_object_list(state)
    resumed.load_state_dict(state[0])
    resumed.report("b", 4)
    return resumed.collect()


def refuse(message: str) -> None:
    raise UserError(message)


def test_two_processes_answer_together():
    first, second = distributed.launch(answers, 2, "cpu")
    assert [found.pop("place") for found in (first, second)] == [(0, 2), (1, 2)]
    assert (first.pop("gathered"), second.pop("gathered")) == ([[1, 2], [11, 12]], None)
    assert first == second
    assert first.pop("statistics") == {"a": (2, 0.5, 0.5), "b": (6, 4, pytest.approx(1.825742))}
    assert first == {
        "sum": [12, 14],
        "mean": [6, 7],
        "largest": 6,
        "made": "by 0",
        "refused": "the first one refuses",
    }


def fail(how: str, folder: Path) -> None:
    """The second process fails; the first waits for it, in vain."""
    if distributed.rank() == 1:
        if how == "abort":  # as gloo's threads sometimes do while the interpreter ends
            atexit.register(os.abort)
        if how in ("mistake", "abort"):
            raise UserError("a mistake of the user: mend it")
        if how == "refused":
            open(folder / "none" / "file")
        if how == "fault":
            raise ZeroDivisionError("a fault of the program")
        if how == "stopped":  # as by a scheduler, before there is anything to finish
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(600)
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()


@pytest.mark.parametrize(
    "how, error, message",
    [
        ("mistake", UserError, "^a mistake of the user: mend it$"),
        ("abort", UserError, "^a mistake of the user: mend it$"),
        ("refused", FileNotFoundError, "No such file or directory: .*none/file"),
        pytest.param(
            "fault", RuntimeError, "ZeroDivisionError: a fault of", marks=pytest.mark.slow
        ),
        # What is noticed first: its end, or its silence.
        ("death", UserError, "process 1 (terminated with signal SIGKILL|on .* went silent)"),
        pytest.param("stopped", SystemExit, "143", marks=pytest.mark.slow),
    ],
)
def test_a_failure_of_one_ends_all(tmp_path, how, error, message):
    with pytest.raises(error, match=message):
        distributed.launch(fail, 2, "cpu", how, tmp_path)


class Diverged(UserError):
    """A kind of UserError that callers tell apart."""


def diverge() -> None:
    raise Diverged("losses are not finite")


def starve() -> None:
    torch.empty(1 << 48, dtype=torch.uint8)


@pytest.mark.parametrize(
    "how, kind",
    [pytest.param(diverge, Diverged, marks=pytest.mark.slow), (starve, OutOfMemory)],
)
def test_an_error_of_a_process_keeps_its_kind(how, kind):
    with pytest.raises(kind):
        distributed.launch(how, 2, "cpu")


@pytest.mark.parametrize("name", ["my täglich %20 tmp", b"caf\xe9"])
def test_any_name_of_the_temporary_folder_will_do(tmp_path, monkeypatch, name):
    folder = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
    os.mkdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", os.fsdecode(folder))
    assert distributed.launch(distributed.world_size, 2, "cpu") == 2


TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a process with this environment, that sees so many CUDA devices."""
    for name in (*TORCHRUN, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def pretend(devices: int, **environment: str) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return pretend


@pytest.mark.parametrize(
    "devices, visible, local_rank, index",
    [
        (4, None, "1", 1),  # two machines of four; torchrun
        (1, "3", "1", 0),  # a scheduler gives each process its own device
        (1, None, "0", 0),  # one process on each machine
        (1, None, None, 0),
        (2, "4,5", "1", 1),
    ],
)
def test_a_process_takes_the_device_of_its_place(machine, devices, visible, local_rank, index):
    told = {"LOCAL_RANK": local_rank, "CUDA_VISIBLE_DEVICES": visible}
    environment = TORCHRUN | told
    machine(devices, **{name: value for name, value in environment.items() if value is not None})
    place = distributed.Place.from_environment()
    assert (place.rank, place.world_size) == (5, 8)
    assert place.device_index() == index
    assert distributed.check_gpus(8, "auto") == "cuda"


@pytest.mark.parametrize(
    "devices, gpus, choice, changes, message",
    [
        (4, 2, "auto", {}, "torchrun started 8 processes.*add --gpus 8"),
        (1, 8, "auto", {}, "LOCAL_RANK 1, but this machine shows 1 CUDA device"),
        (4, 8, "auto", {"LOCAL_RANK": None}, "LOCAL_RANK is not set, and process 5 has 4"),
        (4, 8, "cuda", {"LOCAL_RANK": "4"}, "LOCAL_RANK 4, but this machine shows 4"),
        (4, 1, "auto", {"RANK": None}, "has LOCAL_RANK but not RANK: start .* with torchrun"),
        (0, 8, "cpu", {"WORLD_SIZE": None}, "has RANK and LOCAL_RANK but not WORLD_SIZE"),
        (0, 8, "cpu", {"MASTER_PORT": None}, "not MASTER_PORT"),
        (0, 8, "cpu", {"MASTER_PORT": "http"}, "MASTER_PORT='http' .* is not a number"),
        (0, 8, "cpu", {"RANK": "-1"}, "RANK='-1' .* is not a number"),
        (0, 8, "cpu", {"RANK": "8"}, "RANK 8 must be below WORLD_SIZE 8"),
        (0, 8, "cuda", {}, "no CUDA device here; use --device cpu"),
        (2, 4, "auto", dict.fromkeys(TORCHRUN), "--gpus 4: only 2 CUDA devices are here"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(machine, devices, gpus, choice, changes, message):
    environment = TORCHRUN | changes
    machine(devices, **{name: value for name, value in environment.items() if value is not None})
    with pytest.raises(UserError, match=message):
        distributed.check_gpus(gpus, choice)


@pytest.mark.parametrize(
    "devices, gpus, choice, kind",
    [(0, 3, "auto", "cpu"), (2, 2, "auto", "cuda"), (2, 1, "cuda", "cuda"), (2, 5, "cpu", "cpu")],
)
def test_devices_that_are_enough(machine, devices, gpus, choice, kind):
    machine(devices, WORLD_SIZE="1")  # which alone says nothing
    assert distributed.check_gpus(gpus, choice) == kind


def test_torchrun_starts_processes_that_know_each_other(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from torch_utils import distributed\n"
        "def both(): return distributed.rank(), distributed.all_reduce_sum(torch.ones(1)).item()\n"
        "import sys, torch\n"
        "found = distributed.launch(both, 2, distributed.check_gpus(2, 'cpu'))\n"
        "sys.stdout.write(f'{found}\\n')\n"  # at once: both write to one pipe
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, str(script)], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert sorted(done.stdout.splitlines()) == ["(0, 2.0)", "(1, 2.0)"], done.stderr


def leave_no_thread() -> list[str]:
    """Names of the threads, after the group's end, of a process that has trained a little."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter])
    parameter.square().sum().backward()
    optimizer.step()
    distributed.barrier()
    torch.distributed.destroy_process_group()
    names = [Path(f"/proc/self/task/{task}/comm") for task in os.listdir("/proc/self/task")]
    found = [name.read_text().strip() for name in names]
    alone = {"store": torch.distributed.HashStore(), "rank": 0, "world_size": 1}
    torch.distributed.init_process_group("gloo", **alone)  # for `launch` to end
    return found


@pytest.mark.slow
def test_no_thread_of_the_group_outlives_it():
    """One that did would now and then crash the process at its end."""
    names = distributed.launch(leave_no_thread, 2, "cpu")
    assert not [name for name in names if "gloo" in name], names
