"""Weights & Biases gets what TensorBoard gets; where it cannot, training goes on."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dnnlib import UserError
from tests.helpers import tiny_config
from training.run import loop
from training.run.loop import train
from training.run.wandb_run import check_wandb


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    monkeypatch.setattr(loop, "snapshot_pictures", lambda *_, **__: {})


def run(photographs: Path, folder: Path, kimg: float) -> str:
    config = tiny_config(
        photographs, run__kimg=kimg, run__tick=0.004, run__snap=1, run__wandb="tests"
    )
    assert train(config, folder) is None
    return (folder / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_an_offline_run_holds_tensorboard_s_scalars(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "Biases" not in run(photographs, tmp_path, 0.008)
    assert "Biases" not in run(photographs, tmp_path, 0.012)
    runs = sorted(tmp_path.glob("wandb/offline-run-*"))
    assert len(runs) == 2
    for folder in runs:  # records are neither compressed nor encoded
        (record,) = folder.glob("*.wandb")
        assert b"G/loss_own_view" in record.read_bytes()
    first, second = (r.name.rpartition("-")[2] for r in runs)
    assert first == second  # the resumed run goes on in the same curves


def test_a_service_that_refuses_costs_a_warning(photographs, tmp_path, monkeypatch):
    def refuse(**_):
        raise ValueError("no API key\nlong explanation")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    log = run(photographs, tmp_path, 0.004)
    assert "WARNING: no Weights & Biases (no API key); going on without" in log
    assert "tick 1" in log


def test_a_missing_package_is_told_before_training(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_wandb(None)
    with pytest.raises(UserError, match="pip install wandb"):
        check_wandb("project")
