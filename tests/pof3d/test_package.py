"""The public door: names that stay, a command that answers at once."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import pof3d
from pof3d.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]
PUBLIC = {
    "Config", "Discriminator", "Generator", "ImageDataset", "Mesh", "Network", "Objects",
    "UserError", "View", "build_config", "density_grid", "estimate_labels", "find_surface",
    "latents_of_seeds", "load_network", "project", "save_image_grid", "save_mesh", "save_network",
}  # fmt: skip


def test_public_names_stay():
    """Users import them: adding is fine, renaming is not."""
    assert set(pof3d.__all__) == PUBLIC <= set(dir(pof3d))
    for name in PUBLIC:
        assert getattr(pof3d, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        pof3d.Nothing  # noqa: B018


def test_commands_are_those_of_the_scripts():
    assert {"dataset", "train", "samples", "videos", "poses", "metrics", "convert"} <= set(COMMANDS)
    for script in ("gen_samples_pose", "gen_videos", "project", "estimate_poses", "calc_metrics"):
        shown = CliRunner().invoke(main, [script, "--help"])
        assert shown.exit_code == 0 and "--network" in shown.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name):
    context = click.Context(main)
    shown = CliRunner().invoke(main.get_command(context, name), ["--help"])
    assert shown.exit_code == 0 and shown.output.startswith("Usage:")


def test_an_unknown_command_is_one_line():
    result = CliRunner().invoke(main, ["nothing"])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("Error: No such command 'nothing'")


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys; from pof3d.__main__ import main\n"
        f"main({[*arguments, '--help']!r}, standalone_mode=False)\n"
        "print({'torch', 'numpy', 'matplotlib', 'training.config'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_pins_lie_within_the_bounds_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().split())
    bounds = dict(dependency.split(">=") for dependency in project["dependencies"])
    assert pins.keys() == bounds.keys()
    for name, bound in bounds.items():
        pinned, lowest = ([int(x) for x in re.findall(r"\d+", v)] for v in (pins[name], bound))
        assert pinned >= lowest, name
