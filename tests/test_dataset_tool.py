import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from dataset_tool import main
from training.data.dataset import ImageDataset
from training.data.geometry import to_square
from training.data.ground_truth import load_ground_truth

CAMERA = np.eye(4).flatten().tolist()
INTRINSICS = [4.0, 0, 0.5, 0, 4.0, 0.5, 0, 0, 1]


def run(*arguments) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def convert(source: Path, dest: Path, *options) -> Result:
    return run("convert", "--source", source, "--dest", dest, "--resolution", 16, *options)


@pytest.fixture
def source(tmp_path) -> Path:
    """Five noisy images of many sizes and formats."""
    folder = tmp_path / "source"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in [
        ("a.png", (40, 40)),
        ("b.jpg", (30, 50)),
        ("c.bmp", (16, 16)),
        ("d.webp", (64, 20)),
        ("more/e.png", (7, 9)),
    ]:
        pixels = rng.integers(0, 256, (*reversed(size), 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def break_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("crop", ["center", "pad"])
def test_convert_gives_the_images_that_the_dataset_reads(source, tmp_path, crop):
    dest = tmp_path / "set.zip"
    assert convert(source, dest, "--crop", crop).exit_code == 0
    converted, direct = ImageDataset(dest), ImageDataset(source, 16, crop)
    assert len(converted) == 5 and converted.resolution == 16
    assert all(torch.equal(a, b) for a, b in zip(converted, direct, strict=True))
    assert run("check", dest).exit_code == 0


def test_convert_takes_the_first_images(source, tmp_path):
    convert(source, tmp_path / "set.zip", "--max-images", 2)
    dataset = ImageDataset(tmp_path / "set.zip")
    assert len(dataset) == 2
    assert torch.equal(dataset[1], ImageDataset(source, 16)[1])


def test_convert_stops_at_a_corrupt_image_unless_told_to_skip_it(source, tmp_path):
    break_file(source / "b.jpg")
    dest = tmp_path / "set.zip"
    result = convert(source, dest)
    assert result.exit_code == 1 and "cannot read image b.jpg" in result.output
    assert "--skip-bad" in result.output and not dest.exists()

    result = convert(source, dest, "--skip-bad")
    assert result.exit_code == 0 and "4 images" in result.output and "1 skipped" in result.output
    assert "skipped: cannot read image b.jpg" in result.output
    assert len(ImageDataset(dest)) == 4


def test_convert_carries_labels_along(source, tmp_path):
    square, wide = [4.0, 0, 0.5, 0, 4.5, 0.4, 0, 0, 1], [2.0, 0.1, 0.5, 0, 6.4, 0.4, 0, 0, 1]
    by_size = {"d.webp": wide}
    names = ["a.png", "b.jpg", "c.bmp", "d.webp", "more/e.png"]
    labels = [[name, CAMERA + by_size.get(name, square)] for name in reversed(names)]
    (source / "dataset.json").write_text(json.dumps({"labels": labels}))
    for crop in ("center", "pad"):
        assert convert(source, tmp_path / f"{crop}.zip", "--crop", crop).exit_code == 0

    center = ImageDataset(tmp_path / "center.zip").all_intrinsics
    assert center[0].flatten().tolist() == pytest.approx(square)
    # 64 x 20 to 20 x 20: in pixels fx = 128, skew = 6.4, cx = 32 - 22, fy = 128, cy = 8.
    expected = [6.4, 0.32, 0.5, 0, 6.4, 0.4, 0, 0, 1]
    assert center[3].flatten().tolist() == pytest.approx(expected)
    # 64 x 20 to 64 x 64: cy = 8 + 22.
    expected = [2, 0.1, 0.5, 0, 2, 30 / 64, 0, 0, 1]
    pad = ImageDataset(tmp_path / "pad.zip").all_intrinsics
    assert pad[3].flatten().tolist() == pytest.approx(expected)
    with zipfile.ZipFile(tmp_path / "pad.zip") as archive:
        name, label = json.loads(archive.read("dataset.json"))["labels"][3]
    assert name == "00000/img00000003.png" and label[:16] == CAMERA


@pytest.mark.parametrize("crop", ["center", "pad"])
@pytest.mark.parametrize("size", [(48, 21), (21, 48), (30, 30)])
def test_adjusted_intrinsics_project_to_the_same_spot(tmp_path, size, crop):
    """A bright dot where the camera sees a point stays where the converted camera sees it."""
    folder = tmp_path / "dot"
    folder.mkdir()
    intrinsics = np.array([[2.0, 0, 0.5], [0, 1.5, 0.45], [0, 0, 1]])
    point = np.array([0.06, 0.11, 1])
    column, row = ((intrinsics @ point)[:2] * size).astype(int)
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[row, column] = 255
    Image.fromarray(image).save(folder / "dot.png")
    label = [*CAMERA, *intrinsics.flatten()]
    (folder / "dataset.json").write_text(json.dumps({"labels": [["dot.png", label]]}))
    side = to_square(Image.open(folder / "dot.png"), None, crop).width
    run("convert", "--source", folder, "--dest", tmp_path / "dot.zip", "--resolution", side,
        "--crop", crop)  # fmt: skip
    dataset = ImageDataset(tmp_path / "dot.zip")
    column, row = ((dataset.all_intrinsics[0].double().numpy() @ point)[:2] * side).astype(int)
    assert dataset[0][:, row, column].tolist() == [255] * 3


def test_convert_keeps_the_truth_only_with_every_image(tmp_path):
    toy_zip = tmp_path / "toy.zip"
    result = run("toy", "--dest", toy_zip, "--count", 6, "--resolution", 32, "--seed", 3)
    assert result.exit_code == 0
    truth = load_ground_truth(toy_zip)
    assert len(truth.pose) == 6

    convert(toy_zip, tmp_path / "all.zip")
    assert np.array_equal(load_ground_truth(tmp_path / "all.zip").pose, truth.pose)
    convert(toy_zip, tmp_path / "some.zip", "--max-images", 5)
    assert "ground_truth.npz" not in zipfile.ZipFile(tmp_path / "some.zip").namelist()


def test_toy_options_change_the_images(tmp_path):
    for seed in (0, 1):
        run(
            "toy",
            "--dest",
            tmp_path / f"{seed}.zip",
            "--count",
            3,
            "--resolution",
            16,
            "--seed",
            seed,
        )
    first, second = (ImageDataset(tmp_path / f"{seed}.zip") for seed in (0, 1))
    assert len(first) == 3 and first.resolution == 16
    assert not torch.equal(first[0], second[0])


def test_check_lists_all_faults_at_once(source):
    break_file(source / "b.jpg")
    (source / "more" / "f.png").write_bytes(b"")
    labels = [[name, CAMERA + INTRINSICS] for name in ("a.png", "b.jpg", "d.webp", "more/f.png")]
    labels += [["c.bmp", [1.0]], ["gone.png", CAMERA + INTRINSICS]]
    (source / "dataset.json").write_text(json.dumps({"labels": labels}))
    result = run("check", source)
    assert result.exit_code == 1
    for fault in [
        "cannot read image b.jpg",
        "cannot read image more/f.png",
        "image d.webp has a camera label but is 64 x 20",
        "no label for image more/e.png",
        "label of c.bmp",
        "label for gone.png",
    ]:
        assert result.output.count(fault) == 1, fault


def test_check_sums_up_a_sound_set_in_one_line(source):
    result = run("check", source)
    assert result.exit_code == 0
    assert result.stdout.strip().endswith(
        "5 images without labels, 7 to 40 pixels on their shorter side, no fault"
    )
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "absent"], "no such data set"),
        (["check", "{empty}"], "no images in"),
        (
            ["convert", "--source", "absent", "--dest", "x.zip", "--resolution", 8],
            "no such data set",
        ),
        (
            ["convert", "--source", "{source}", "--dest", "no/x.zip", "--resolution", 8],
            "no folder no",
        ),
        (["convert", "--source", "{source}", "--dest", "x.png", "--resolution", 8], "end in .zip"),
        (
            ["convert", "--source", "{source}", "--dest", "x.zip", "--resolution", 0],
            "not in the range",
        ),
        (["toy", "--dest", "no/x.zip", "--count", 1], "no folder no"),
    ],
)
def test_bad_input_gets_one_line(source, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    folders = {"source": source, "empty": tmp_path / "empty"}
    result = run(*(str(argument).format(**folders) for argument in arguments))
    assert result.exit_code != 0
    assert message in result.output.strip().splitlines()[-1]


def test_exit_status_and_streams_of_the_real_command(source):
    break_file(source / "b.jpg")
    tool = Path(__file__).parents[1] / "dataset_tool.py"
    done = subprocess.run([sys.executable, tool, "check", source], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stdout.startswith("cannot read image b.jpg")
    assert "5 images, number of faults: 1" in done.stderr
