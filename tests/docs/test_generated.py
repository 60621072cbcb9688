"""Generated pages are up to date, and nothing that has a name lacks a text."""

import importlib
import re

import click
import pytest
import torch

from docs import generate
from metrics.registry import NAMES
from pof3d.__main__ import COMMANDS
from tests.docs.pages import ROOT
from tests.helpers import tiny_config, write_photographs
from training.config import describe_settings
from training.presets import PRESETS
from training.run.loop import open_dataset
from training.step import Trainer

LOGS = (ROOT / "docs/logs.md").read_text()


@pytest.mark.parametrize("name, text", generate.pages().items())
def test_page_is_what_the_code_says(name, text):
    assert (ROOT / "docs" / name).read_text() == text, "run: python docs/generate.py"


def test_every_setting_has_a_description():
    assert not [name for name, _, description in describe_settings() if not description]


def options() -> list[tuple[str, click.Option]]:
    commands = [
        importlib.import_module(f"pof3d.commands.{name}").main for name, _ in COMMANDS.values()
    ]
    commands += [sub for each in commands for sub in getattr(each, "commands", {}).values()]
    return [(each.name, p) for each in commands for p in each.params if isinstance(p, click.Option)]


def test_every_option_has_a_help():
    assert not [(command, option.opts) for command, option in options() if not option.help]


def test_every_metric_is_defined():
    defined = (ROOT / "docs/metrics.md").read_text()
    assert not [name for name in NAMES if name not in defined]


def test_every_preset_has_a_row_in_the_training_guide():
    assert not PRESETS.keys() - set(
        re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/training.md").read_text(), re.M)
    )


def test_every_scalar_is_explained(tmp_path):
    everything = {"generator__diversity_clarity": 0.5, "camera__spread_rate": 50}
    everything |= {"loss__gamma_gap": 1.5, "loss__pose_anchor_weight": 1.0}
    config = tiny_config(write_photographs(tmp_path), **everything)
    trainer = Trainer(config, open_dataset(config), torch.device("cpu"))
    trainer.step()
    assert not [name for name in trainer.stats.collect() if f"`{name}`" not in LOGS]


def test_parity_table_counts_misses():
    page = generate.parity_page(
        "ok    1.00e-07  (at most 1e-04)  a/b  [ops]\n"
        "MISS  2.00e-03  (at most 1e-03)  c  [ops]\n2 quantities, 1 missed\n"
    )
    assert "2 quantities are compared" in page and "1 exceed" in page
    assert re.search(r"`ops` .* \| 2 \| 1 \| 1.0e-07 \| 2.0e-03 \|", page)
