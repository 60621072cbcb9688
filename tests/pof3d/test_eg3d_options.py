"""The hints for options of other programs name things that exist, and hide nothing."""

import re

import pytest
from click.testing import CliRunner

from pof3d.commands import (
    calc_metrics,
    dataset_tool,
    eg3d_options,
    estimate_poses,
    gen_samples_pose,
    gen_videos,
    train,
)
from training.presets import build_config

TABLES = {
    name: getattr(eg3d_options, name)
    for name in ("SAMPLES", "VIDEOS", "TRAIN", "METRICS", "DATASET")
}


@pytest.mark.parametrize("table", TABLES)
def test_names_are_as_the_command_looks_for_them(table):
    for option, hint in TABLES[table].items():
        assert re.fullmatch("--[a-z0-9-]+", option) and hint and not hint.endswith(".")


def test_settings_of_hints_exist():
    defaults = build_config("ffhq").model_dump()
    settings = re.findall(r"--set (\w+)\.(\w+)=", " ".join(eg3d_options.TRAIN.values()))
    assert len(settings) > 15
    for section, field in settings:
        assert field in defaults[section], f"{section}.{field}"


COMMANDS = [
    gen_samples_pose.main,
    gen_videos.main,
    estimate_poses.main,
    train.main,
    calc_metrics.main,
    dataset_tool.main.commands["convert"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.callback.__module__)
def test_no_hint_is_about_an_option_that_is_there(command):
    own = {name for parameter in command.params for name in parameter.opts}
    assert command.elsewhere and not own & command.elsewhere.keys()
    for hint in command.elsewhere.values():
        if hint.startswith("write --"):
            assert set(re.findall(r"--[a-z-]+", hint)) <= own, hint


@pytest.mark.parametrize(
    "option",
    [
        "--neural_rendering_resolution_initial",
        "--cbase",
        "--map-depth",
        "--gen_pose_cond",
        "--blur_fade_kimg",
        "--mbstd-group",
    ],
)
def test_training_hints_at_our_names(option):
    result = CliRunner().invoke(train.main, ["--outdir", "runs", "--cfg", "ffhq", option, "64"])
    last = result.output.strip().splitlines()[-1]
    assert result.exit_code == 2 and last.startswith(f"Error: there is no {option} here: ")
