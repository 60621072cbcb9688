"""Whether reversed depth is tried, kept where it is better, and forgotten where it is not."""

import copy
from pathlib import Path

import pytest
import torch

from benchmarks.kill_drill import same
from tests.helpers import tiny_config
from training.files.network_file import load_network
from training.run.depth_trial import DepthTrial, is_tried
from training.run.loop import open_dataset, train
from training.step import Trainer, TrainingDiverged

TRIED = {"generator__diversity_clarity": 0.5, "generator__depth_trial_kimg": "0.008,0.008"}
RUN = {"run__kimg": 0.024, "run__tick": 0.008, "run__snap": 3}


@pytest.fixture
def trainer(photographs) -> Trainer:
    config = tiny_config(photographs, **TRIED)
    return Trainer(config, open_dataset(config), torch.device("cpu"))


def outcome(monkeypatch, as_it_is: float, reversed_depth: float) -> None:
    found = iter([(as_it_is, 0.0), (reversed_depth, 0.0)])
    monkeypatch.setattr(DepthTrial, "_success", lambda _: next(found))


def state_at_decision(trainer: Trainer, trial: DepthTrial) -> dict:
    for _ in range(4):
        trial.look(lambda: True)
        trainer.step()
    return copy.deepcopy(trainer.state_dict())


def newest_network(config, folder: Path):
    folder.mkdir()
    assert train(config, folder) is None
    return load_network(folder / "network-000000.02.safetensors")


def test_a_worse_reversal_leaves_no_trace(photographs, tmp_path, monkeypatch):
    outcome(monkeypatch, 0.5, 0.55)  # not clearly better
    tried = newest_network(tiny_config(photographs, **TRIED, **RUN), tmp_path / "tried")
    assert "depth stays as it was" in (tmp_path / "tried" / "log.txt").read_text()
    never = TRIED | {"generator__depth_trial_kimg": "8,8"}
    plain = newest_network(tiny_config(photographs, **never, **RUN), tmp_path / "plain")
    assert same(tried.generator.state_dict(), plain.generator.state_dict())
    assert same(tried.discriminator.state_dict(), plain.discriminator.state_dict())


def test_a_better_reversal_stays(photographs, tmp_path, monkeypatch):
    outcome(monkeypatch, 0.5, 0.7)
    network = newest_network(tiny_config(photographs, **TRIED, **RUN), tmp_path / "run")
    assert network.generator.backbone.depth_reversed
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "0.50, 0.00; with reversed depth 0.70, 0.00; depth is reversed from here on" in log


def test_both_begin_alike_and_see_the_same_photographs(trainer, monkeypatch):
    outcome(monkeypatch, 0.5, 0.7)
    monkeypatch.setattr(DepthTrial, "_reverse", lambda _: None)
    trial = DepthTrial(trainer, print)
    before = state_at_decision(trainer, trial)
    assert trial.look(lambda: True)
    assert same(before, trainer.state_dict())


def test_training_that_stops_meanwhile_has_decided_nothing(trainer):
    trial = DepthTrial(trainer, print)
    before = state_at_decision(trainer, trial)
    calls = iter([True, False])
    assert trial.look(lambda: next(calls))
    assert same(before, trainer.state_dict())
    assert trial.look(lambda: True)
    assert not trial.look(lambda: True)


def test_a_reversal_that_diverges_is_worse(trainer, monkeypatch):
    trial = DepthTrial(trainer, print)
    before = state_at_decision(trainer, trial)

    def step(_: Trainer) -> None:
        raise TrainingDiverged("not finite")

    monkeypatch.setattr(Trainer, "step", step)
    trial.look(lambda: True)
    assert same(before, trainer.state_dict())
    assert not trial.look(lambda: True)


@pytest.mark.parametrize(
    "changes",
    [
        {"generator__diversity_clarity": None},
        {"generator__depth_trial_kimg": None},
        {"camera__poses": "prior"},
        {"camera__range_v": "1,2"},
        {"geod__weight_end": 0.5},
    ],
    ids=str,
)
def test_it_is_tried_only_where_it_can_be(photographs, changes):
    assert is_tried(tiny_config(photographs, **TRIED))
    assert not is_tried(tiny_config(photographs, **(TRIED | changes)))


def test_it_begins_when_objects_are_about_to_differ(photographs):
    config = tiny_config(photographs, **(TRIED | {"generator__depth_trial_kimg": "9,0.004"}))
    trainer = Trainer(config, open_dataset(config), torch.device("cpu"))
    trial = DepthTrial(trainer, print)
    trainer.step()
    trial.look(lambda: True)
    assert trial.state_dict()["before"] is None
    moments = trainer.feedback.diversity.moments  # of h and v: mean, mean square, D's mean square
    moments.copy_(torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.55, 0.55]]))
    trial.look(lambda: True)
    assert trial.state_dict()["before"]["steps"] == 1
