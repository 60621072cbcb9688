"""Networks of a file and of a run that goes on."""

import os
from pathlib import Path

import pytest
from PIL import Image

from dnnlib import UserError
from pof3d.viewer.source import NetworkSource
from tests.helpers import small_generator
from training.files.network_file import save_network


@pytest.fixture
def run_folder(tmp_path) -> Path:
    save_network(tmp_path / "network-000001.00.safetensors", small_generator(), None, {})
    for name, color in {
        "reals": "red",
        "fakes-000001.00": "green",
        "poses-000001.00": "blue",
    }.items():
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    return tmp_path


def test_a_run_is_followed_to_its_newest_network(run_folder):
    source = NetworkSource(run_folder)
    first = source.network
    assert not source.refresh() and source.network is first
    save_network(run_folder / "network-000002.00.safetensors", small_generator(seed=1), None, {})
    assert source.refresh() and source.network is not first
    assert source.file.name == "network-000002.00.safetensors"


def test_a_broken_snapshot_leaves_the_one_before(run_folder):
    source = NetworkSource(run_folder)
    first = source.network
    (run_folder / "network-000002.00.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="000002"):
        source.refresh()
    assert source.network is first


def test_the_newest_pictures_of_the_run_are_shown(run_folder):
    Image.new("RGB", (8, 8), "white").save(run_folder / "fakes-000002.00.png")
    (run_folder / "poses-000002.00.png").write_bytes(b"half")
    pictures = NetworkSource(run_folder).pictures()
    assert set(pictures) == {"Photographs", "Samples"}
    assert pictures["Samples"].getpixel((0, 0)) == (255, 255, 255)


def test_a_file_has_no_run(run_folder):
    (path,) = run_folder.glob("network-*")
    assert NetworkSource(path).pictures() == {}


def test_a_folder_without_network_is_refused(tmp_path):
    with pytest.raises(UserError, match=os.path.basename(tmp_path)):
        NetworkSource(tmp_path)
