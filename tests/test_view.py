"""The command line of the viewer."""

import importlib.util

import pytest
from click.testing import CliRunner

from pof3d.commands import view


def line(*arguments: str) -> str:
    """What the command prints where it fails."""
    result = CliRunner().invoke(view.main, arguments)
    assert result.exit_code == 1 and result.output.count("\n") == 1, result.output
    return result.output


def test_without_viser_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install viser" in line("--network", "demo")


@pytest.mark.parametrize("arguments", [(), ("--network", "demo", "--run", "runs")])
def test_one_of_network_and_run_is_named(arguments):
    assert "--network" in line(*arguments) and "--run" in line(*arguments)


@pytest.mark.parametrize("option", ["--network", "--run"])
def test_what_does_not_exist_is_named(option):
    assert "no-such-file" in line(option, "no-such-file")
