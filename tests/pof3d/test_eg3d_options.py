"""The hints for options of other programs name things that exist, and hide nothing."""

import re

import pytest

from pof3d.commands import eg3d_options, gen_samples_pose, gen_videos
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


@pytest.mark.parametrize(
    ("module", "table"), [(gen_samples_pose, "SAMPLES"), (gen_videos, "VIDEOS")]
)
def test_no_hint_is_about_an_option_that_is_there(module, table):
    own = {name for parameter in module.main.params for name in parameter.opts}
    assert not own & TABLES[table].keys()
    for hint in TABLES[table].values():
        if hint.startswith("write --"):
            assert set(re.findall(r"--[a-z-]+", hint)) <= own, hint
