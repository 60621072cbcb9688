"""Every example does what it says, in miniature, in a process of its own."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trimesh
from PIL import Image

from tests.helpers import PATIENCE, SIZES, write_photographs

ROOT = Path(__file__).parents[1]
NETWORK = ROOT / "models/toy.safetensors"


def run(number: int, *arguments: object) -> str:
    """What an example prints."""
    (script,) = (ROOT / "examples").glob(f"{number:02d}_*.py")
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_samples(tmp_path):
    printed = run(1, NETWORK, tmp_path / "samples.png")
    assert Image.open(tmp_path / "samples.png").size == (6 * 32, 8 * 32)
    assert printed.count("yaw") == 8


def test_mesh(tmp_path):
    printed = run(2, NETWORK, 3, tmp_path / "head.glb")
    mesh = trimesh.load(tmp_path / "head.glb").to_geometry()
    assert mesh.is_watertight and f"{len(mesh.faces)} triangles" in printed


@pytest.mark.slow
def test_project(tmp_path):
    (photograph,) = write_photographs(tmp_path / "photographs", count=1).iterdir()
    printed = run(3, NETWORK, photograph, tmp_path / "turned.png")
    assert Image.open(tmp_path / "turned.png").size == (7 * 32, 32)
    assert float(printed.split()[1]) > 10  # dB


def test_poses_of_a_folder(tmp_path):
    write_photographs(tmp_path / "photographs", count=3)
    printed = run(4, NETWORK, tmp_path / "photographs", tmp_path / "poses.csv")
    with open(tmp_path / "poses.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["photograph"] for row in rows] == ["000.png", "001.png", "002.png"]
    assert all(abs(float(row["pitch_degrees"])) <= 90 for row in rows)
    assert "3 photographs" in printed


@pytest.mark.slow
def test_train_on_a_folder(tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    settings = SIZES | {
        "data.resolution": 32, "rendering.raw_resolution": 32, "discriminator.dual": "false",
        "generator.feature_channels": 3, "run.device": "cpu",
    }  # fmt: skip
    words = [f"{key}={value}" for key, value in settings.items()]
    run(5, photographs, tmp_path / "runs", 0.016, *words)
    assert Image.open(tmp_path / "runs/samples.png").size == (4 * 32, 4 * 32)
