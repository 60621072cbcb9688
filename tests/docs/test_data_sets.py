"""The preparation of the paper's data sets in docs/data.md, on stand-ins of the same layout."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from pof3d.commands.dataset_tool import main as dataset_tool
from tests.docs.pages import ROOT, blocks
from tests.helpers import write_photographs
from training.data.dataset import ImageDataset
from training.presets import PRESETS
from training.run.loop import open_dataset
from training.run.start import Request

DATA = ROOT / "docs/data.md"


def lines() -> list[str]:
    return "\n".join(blocks(DATA, "sh")).splitlines()


def ffhq(folder: Path) -> None:
    """Images in numbered folders, and the labels of docs/data.md."""
    (text,) = blocks(DATA, "json")
    labels = json.loads(text)
    write_photographs(folder / "00000", count=len(labels["labels"]), resolution=64)
    for image, (name, _) in zip(sorted(folder.rglob("*.png")), labels["labels"], strict=True):
        image.rename(folder / name)
    (folder / "dataset.json").write_text(text)


def cats(folder: Path) -> None:
    """Images in one folder."""
    write_photographs(folder, count=3, resolution=64)


def cars(folder: Path) -> None:
    """A folder for each object, with files of numbers beside the images."""
    for name in ("1a", "2b"):
        write_photographs(folder / name / "rgb", count=2, resolution=128)
        (folder / name / "pose").mkdir()
        (folder / name / "pose/000000.txt").write_text("1 0 0 0")
        (folder / name / "intrinsics.txt").write_text("131.25 64 64 0")


@pytest.mark.parametrize(
    "source, preset, make, count",
    [
        ("FFHQ_512", "ffhq", ffhq, 2),
        ("afhq/train/cat", "cats", cats, 3),
        ("cars_train", "shapenet_cars", cars, 4),
    ],
)
def test_steps_of_the_page(tmp_path, monkeypatch, source, preset, make, count):
    monkeypatch.chdir(tmp_path)
    make(Path(source))
    (convert,) = [line for line in lines() if f"--source {source} " in line]
    arguments = shlex.split(convert)[2:]
    result = CliRunner().invoke(dataset_tool, arguments)
    assert result.exit_code == 0, result.output
    destination = arguments[arguments.index("--dest") + 1]
    assert f"./{preset}.sh {destination}" in lines()
    assert CliRunner().invoke(dataset_tool, ["check", destination]).exit_code == 0
    config = Request(preset, {"data.path": destination}, (), Path("runs"), None, None).config()
    dataset = open_dataset(config)
    assert len(dataset) == count and dataset[0].shape[1] == PRESETS[preset].data.resolution
    assert (dataset.all_intrinsics is not None) == (preset == "ffhq")


def test_the_labels_shown_are_sound(tmp_path):
    """25 numbers each, cameras at the stated places."""
    ffhq(tmp_path)
    dataset = ImageDataset(tmp_path, labels="required")
    assert dataset.all_cam2world[:, :3, 3].tolist() == [
        pytest.approx([0, 0, 2.7]),
        pytest.approx([1.35, 0, 2.338], abs=1e-3),
    ]
