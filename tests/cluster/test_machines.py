"""Runs on several machines: agents of torchrun, each with processes of its own."""

from pathlib import Path

import pytest

from benchmarks.kill_drill import BATCH, Job, cause_in, drill, final_state, same, wait_for
from training.run.checkpoint import load_checkpoint
from training.run.run_folder import checkpoints

pytestmark = pytest.mark.slow


def train(folder: Path, photographs: Path, machines: int, processes: int, steps: int) -> dict:
    """The state after a run without a break."""
    folder.mkdir()
    length = ("--data", str(photographs), "--kimg", str(steps * BATCH / 1000))
    with Job(folder, str(machines), processes, *length) as it:
        for number in range(machines):
            it.start(number)
        it.finish()
    return final_state(folder)


def test_two_machines_of_two_processes_train_as_one_of_four(photographs, tmp_path):
    whole = train(tmp_path / "1x4", photographs, 1, 4, steps=6)
    parts = train(tmp_path / "2x2", photographs, 2, 2, steps=6)
    assert whole["steps"] == 6 and len(whole["random"]["cpu"]) == 4
    assert same(parts, whole)


def test_killed_machines_cost_nothing(photographs, tmp_path):
    """One that comes back to those that are left, and the one where all meet."""
    steps = 30
    whole = train(tmp_path / "whole", photographs, 1, 2, steps)
    (tmp_path / "killed").mkdir()
    kills = drill(tmp_path / "killed", 2, steps, 1, "--data", str(photographs))
    assert "process 1 on " in kills[0].cause and "went silent (last seen in " in kills[0].cause
    assert "process 0 or its machine is gone" in kills[1].cause
    assert same(final_state(tmp_path / "killed"), whole)


def test_a_machine_that_stays_away_is_done_without(photographs, tmp_path):
    options = ("--data", str(photographs), "--kimg", "0.12")
    with Job(tmp_path, "1:2", 1, *options) as it:
        it.start(0)
        it.start(1)
        wait_for(lambda: both_have_saved(it), "a checkpoint of both")
        it.kill(1)
        it.finish()
    said = it.log(0).read_text()
    assert "process 1 on" in cause_in(said.encode())
    assert "2 process(es) wrote the checkpoint and 1 resume it: weights and optimizers are" in said
    assert final_state(tmp_path)["steps"] == 30


def both_have_saved(it: Job) -> bool:
    found = checkpoints(it.run_folder) if it.run_folder else []
    return any(len(load_checkpoint(path)["trainer"]["random"]["cpu"]) == 2 for path in found)
