"""Several processes that know each other, and what happens when one of them fails."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from dnnlib import UserError
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
        "gradients": averaged_gradients(rank),
        "statistics": statistics(rank),
    }
    try:
        distributed.from_first(lambda: refuse("the first one refuses"))
    except UserError as error:
        found["refused"] = str(error)
    both = [{}, {}]
    torch.distributed.all_gather_object(both, found)
    return both


def averaged_gradients(rank: int) -> list:
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (1, 2, 3)]
    parameters[0].grad = torch.full((1,), float(rank))
    parameters[2].grad = torch.arange(3) * float(rank)
    distributed.average_gradients(parameters)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


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
        "gradients": [[0.5], None, [0, 0.5, 1]],
        "refused": "the first one refuses",
    }


def fail(how: str, folder: Path) -> None:
    """The second process fails; the first waits for it, in vain."""
    if distributed.rank() == 1:
        if how == "mistake":
            raise UserError("a mistake of the user: mend it")
        if how == "fault":
            raise ZeroDivisionError("a fault of the program")
        if how == "stopped":  # as by a scheduler, before there is anything to finish
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(60)
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.barrier()


@pytest.mark.parametrize(
    "how, error, message",
    [
        ("mistake", UserError, "^a mistake of the user: mend it$"),
        pytest.param("fault", Exception, "ZeroDivisionError: a fault of", marks=pytest.mark.slow),
        ("death", UserError, "process 1 terminated with signal SIGKILL, the others were stopped"),
        pytest.param("stopped", SystemExit, "143", marks=pytest.mark.slow),
    ],
)
def test_a_failure_of_one_ends_all(tmp_path, how, error, message):
    started = time.monotonic()
    with pytest.raises(error, match=message):
        distributed.launch(fail, 2, "cpu", how, tmp_path)
    assert time.monotonic() - started < 45


def test_another_number_than_torchrun_started_is_refused(monkeypatch):
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="torchrun started 4 processes.*add --gpus 4"):
        distributed.launch(answers, 2, "cpu")


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
