"""Files and settings of earlier versions still work. tests/data/version1 was written by one."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.helpers import write_photographs
from training import old_names
from training.config import config_from_dict
from training.files.network_file import load_network
from training.presets import build_config
from training.run.loop import train
from training.run.run_folder import checkpoints

VERSION1 = Path(__file__).parents[1] / "data" / "version1"


def test_settings_of_old_names():
    config = build_config(
        "toy",
        {
            "camera.swap": "0.25",
            "loss.pull_weight": 3.0,
            "loss.spread_weight": 0,
            "data.crop": "centre",
        },
    )
    assert config.camera.swap_poses_prob == 0.25
    assert config.loss.pose_consistency_weight == 3.0
    assert config.loss.pose_entropy_weight == 0
    assert config.data.crop == "center"


def test_two_old_settings_became_one():
    for old, poses, expected in [
        ("given", "learned", "given"),
        ("learned", "prior", "prior"),
        ("learned", "learned", "learned"),
    ]:
        settings = {"generator": {"pose": old}, "camera": {"poses": poses}}
        assert config_from_dict(settings).camera.poses == expected
    assert build_config("ffhq", {"generator.pose": "given"}).camera.poses == "given"


def test_a_setting_that_is_gone_does_no_harm():
    config = config_from_dict({"loss": {"pose_spread_weight": 0.5, "gamma": 0.3}})
    assert config.loss.gamma == 0.3 and config.camera.spread_rate == 0


def test_every_new_name_exists():
    for new in old_names.SETTINGS.values():
        section, _, field = new.partition(".")
        assert field in build_config("ffhq").model_dump()[section]


def test_an_old_config_is_understood():
    config = config_from_dict(json.loads((VERSION1 / "run" / "config.json").read_text()))
    assert config.camera.swap_poses_prob == 0.5 and config.augment.mode == "ada"
    assert config.data.crop == "center"


def test_psi_of_an_old_run_has_settled():
    state = {"G": {}, "G_ema": {}, "D": {}, "diversity": {"psi": 0.4}}
    assert old_names.current_state(state)["diversity"] == {"psi": 0.4, "settled_psi": 0.4}
    state["diversity"] = {"psi": 0.4, "settled_psi": 0.1}
    assert old_names.current_state(state)["diversity"]["settled_psi"] == 0.1


@pytest.mark.parametrize("name", ["run/network-000000.01.safetensors", "prior.safetensors"])
def test_an_old_network_file_loads(name):
    network = load_network(VERSION1 / name)
    view = network.generator(torch.zeros(1, 8))
    assert view.image.shape == (1, 1, 3, 32, 32) and view.image.isfinite().all()
    if name.startswith("prior"):
        pose = network.generator.latent(torch.zeros(1, 8)).pose
        assert torch.equal(pose[0], network.generator.pose_source.mean)


def test_an_old_run_resumes_where_it_would_have_gone(tmp_path, monkeypatch):
    """The next step gives the weights that the old code gave, up to this machine's rounding."""
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "photographs")
    folder = tmp_path / "run"
    shutil.copytree(VERSION1 / "run", folder)
    expected = load_network(folder / "network-000000.01.safetensors")
    (folder / "network-000000.01.safetensors").unlink()
    config = config_from_dict(json.loads((folder / "config.json").read_text()))
    before = checkpoints(folder)
    assert train(config, folder) is None
    assert len(checkpoints(folder)) == len(before) + 1
    found = load_network(folder / "network-000000.01.safetensors")
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        for (name, a), (_, b) in zip(
            ours.state_dict().items(), theirs.state_dict().items(), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=name)
