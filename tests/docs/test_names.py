"""Settings and options that sentences and tables name exist."""

import importlib
import re

import pytest

from pof3d.__main__ import COMMANDS
from tests.docs.pages import CODE_SPAN, PAGES, name_of, prose
from training.config import Config, describe_settings

SETTINGS = {name for name, _, _ in describe_settings()}
SECTIONS = [name for name in Config.model_fields if name != "preset"]
SETTING = re.compile(rf"(?<![\w./])(?:{'|'.join(SECTIONS)})\.[a-z]\w+(?![\w(]|\.\w)")
FILES = re.compile(r"\.(py|sh|sb|png|npz|md|json)$")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OTHERS = {  # of setup.sh, recipes, benchmarks, git, and other people's programs
    "--array", "--browser", "--cpu", "--every", "--fp", "--images", "--kills", "--logdir",
    "--max-restarts", "--naive", "--nodes", "--noise", "--per-identity", "--pitch-std",
    "--processor-time", "--rate", "--repeats", "--shm-size", "--stage", "--strict", "--target",
    "--threads", "--turn", "--twins", "--wheel", "--wilds", "--yaw-std",
}  # fmt: skip
OLD_NAMES = ("CHANGELOG.md",)  # says what they were


def spans(page):
    return CODE_SPAN.findall(prose(page))


def options() -> set[str]:
    commands = [
        importlib.import_module(f"pof3d.commands.{name}").main for name, _ in COMMANDS.values()
    ]
    commands += [sub for each in commands for sub in getattr(each, "commands", {}).values()]
    found = {name for each in commands for p in each.params for name in p.opts}
    return found | {"--help"}


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in OLD_NAMES], ids=name_of)
def test_settings_exist(page):
    named = {match for span in spans(page) for match in SETTING.findall(span)}
    assert not {name for name in named if not FILES.search(name)} - SETTINGS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_exist(page):
    named = {match for span in spans(page) for match in OPTION.findall(span)}
    assert not named - options() - OTHERS
