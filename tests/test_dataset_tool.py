import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from pof3d.commands.dataset_tool import main
from tests.helpers import PATIENCE, wait_until
from training.data.dataset import ImageDataset
from training.data.geometry import to_square
from training.data.ground_truth import load_ground_truth
from training.data.writer import png_bytes

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
    done = subprocess.run([sys.executable, TOOL, "check", source], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stdout.startswith("cannot read image b.jpg")
    assert "5 images, number of faults: 1" in done.stderr


def write_labels(folder: Path, labels) -> None:
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


NAMES = ["a.png", "b.jpg", "c.bmp", "d.webp", "more/e.png"]


def test_class_labels_stay_behind_with_a_note(source, tmp_path):
    write_labels(source, [[name, 0] for name in NAMES])
    result = convert(source, tmp_path / "set.zip")
    assert result.exit_code == 0 and "note: dataset.json has no camera labels" in result.output
    assert "dataset.json" not in zipfile.ZipFile(tmp_path / "set.zip").namelist()
    result = run("check", source)
    assert result.exit_code == 0 and "note: dataset.json has no camera labels" in result.output


def test_surplus_labels_stay_behind_with_a_note(source, tmp_path):
    labels = [[name, CAMERA + INTRINSICS] for name in [*NAMES, "gone.png"]]
    write_labels(source, labels)
    result = convert(source, tmp_path / "set.zip")
    assert result.exit_code == 0 and "note: dataset.json: label for gone.png" in result.output
    dataset = ImageDataset(tmp_path / "set.zip", labels="required")
    assert dataset.all_intrinsics.shape == (5, 3, 3) and dataset.notes == []


def test_images_with_impossible_cameras_are_bad_images(source, tmp_path):
    labels = [[name, CAMERA + INTRINSICS] for name in NAMES[:4]]
    labels[1][1] = CAMERA + [1092.0, 0, 256, 0, 1092, 256, 0, 0, 1]
    write_labels(source, labels)
    result = convert(source, tmp_path / "set.zip")
    assert result.exit_code == 1 and "label of b.jpg" in result.output
    result = convert(source, tmp_path / "set.zip", "--skip-bad")
    assert result.exit_code == 0 and "3 images" in result.output and "2 skipped" in result.output
    assert len(ImageDataset(tmp_path / "set.zip", labels="required")) == 3


def test_labels_that_cannot_be_parsed_can_be_left_out(source, tmp_path):
    (source / "dataset.json").write_text("{")
    result = convert(source, tmp_path / "set.zip")
    assert result.exit_code == 1 and "dataset.json is not of the form" in result.output
    result = convert(source, tmp_path / "set.zip", "--skip-bad")
    assert result.exit_code == 0 and "skipped: dataset.json" in result.output
    assert len(ImageDataset(tmp_path / "set.zip")) == 5


def test_photographs_stored_on_their_side_turn_with_their_labels(tmp_path):
    """A bright dot where the camera sees a point stays where the converted camera sees it."""
    (tmp_path / "set").mkdir()
    intrinsics = np.array([[2.0, 0, 0.5], [0, 1.5, 0.45], [0, 0, 1]])
    point = np.array([0.06, 0.11, 1])
    column, row = ((intrinsics @ point)[:2] * (60, 40)).astype(int)
    pixels = np.zeros((40, 60), np.uint8)
    pixels[row, column] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "set" / "dot.png", exif=exif)
    write_labels(tmp_path / "set", [["dot.png", [*CAMERA, *intrinsics.flatten()]]])

    assert "is 40 x 60, not square" in run("check", tmp_path / "set").output
    run("convert", "--source", tmp_path / "set", "--dest", tmp_path / "dot.zip",
        "--resolution", 40)  # fmt: skip
    dataset = ImageDataset(tmp_path / "dot.zip")
    camera = dataset.all_cam2world[0, :3, :3].T.double().numpy() @ point
    position = dataset.all_intrinsics[0].double().numpy() @ camera
    column, row = (position[:2] / position[2] * 40).astype(int)
    assert dataset[0][:, row, column].tolist() == [255] * 3
    assert dataset.all_cam2world[0].det() == pytest.approx(1)


def test_square_photographs_stored_on_their_side_are_refused_with_labels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", exif=exif)
    assert run("check", tmp_path).exit_code == 0
    write_labels(tmp_path, [["a.png", CAMERA + INTRINSICS]])
    result = run("check", tmp_path)
    assert (
        result.exit_code == 1 and "a.png has a camera label but is stored turned" in result.output
    )


@pytest.mark.parametrize("resolution", ["16", "16x16"])
def test_options_without_a_subcommand_are_those_of_convert(source, tmp_path, resolution):
    """As users of EG3D's tool of the same name type them."""
    dest = tmp_path / "set.zip"
    result = run("--source", source, "--dest", dest, f"--resolution={resolution}")
    assert result.exit_code == 0, result.output
    assert convert(source, tmp_path / "same.zip").exit_code == 0
    assert dest.read_bytes() == (tmp_path / "same.zip").read_bytes()


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--transform", "center-crop", "write --crop center or --crop pad"),
        ("--resolution", "16x32", "not square; write 16"),
        ("--resolution", "small", "not a number of pixels"),
    ],
)
def test_options_of_elsewhere_get_a_hint(source, tmp_path, option, value, hint):
    arguments = {"--source": source, "--dest": tmp_path / "x.zip", "--resolution": 16}
    result = run(*(x for pair in (arguments | {option: value}).items() for x in pair))
    assert result.exit_code == 2 and hint in result.output


def test_crops_as_earlier_versions_called_them(source, tmp_path):
    for crop in ("centre", "center"):
        assert convert(source, tmp_path / f"{crop}.zip", "--crop", crop).exit_code == 0
    assert (tmp_path / "centre.zip").read_bytes() == (tmp_path / "center.zip").read_bytes()
    assert convert(source, tmp_path / "x.zip", "--crop", "left").exit_code == 2


TOOL = Path(__file__).parents[1] / "dataset_tool.py"


def test_log_files_get_neither_progress_bars_nor_warnings(source, tmp_path):
    jpeg = (source / "b.jpg").read_bytes()
    broken_exif = b"\xff\xe1\0\x12Exif\0\0MM\0*\0\0\0\x08\0\x09"
    (source / "b.jpg").write_bytes(jpeg[:2] + broken_exif + jpeg[2:])
    for arguments in (
        ["check", source],
        ["convert", "--source", source, "--dest", tmp_path / "x.zip", "--resolution", "8"],
        ["toy", "--dest", tmp_path / "y.zip", "--count", "2", "--resolution", "8"],
    ):
        done = subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == ""


def test_names_that_the_terminal_cannot_show_are_escaped(source):
    (source / os.fsdecode(b"br\xe9.png")).write_bytes(b"")
    (source / "\u2603.png").write_bytes(b"")
    for encoding in ("ascii", "utf-8:strict"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(
            [sys.executable, TOOL, "check", source], capture_output=True, env=environment
        )
        assert done.returncode == 1 and b"Traceback" not in done.stderr
        assert b"number of faults: 2" in done.stderr and b"br\\xe9.png" in done.stdout


def test_a_reader_that_went_away_is_not_a_fault_of_the_destination(source, tmp_path):
    """`dataset_tool.py convert … | head -1`."""
    for number in range(300):
        (source / f"{number}.png").write_bytes(b"")
    arguments = ["--source", source, "--dest", tmp_path / "x.zip", "--resolution", "8"]
    with subprocess.Popen(
        [sys.executable, "-u", TOOL, "convert", *arguments, "--skip-bad"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        message = process.stderr.read()
    assert process.returncode == 141 and b"cannot write" not in message
    assert b"Traceback" not in message and not [*tmp_path.glob("*.zip*")]


def test_a_terminated_convert_leaves_nothing(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "0.png").write_bytes(png_bytes(Image.new("L", (3000, 3000))))
    for number in range(1, 400):
        (tmp_path / "set" / f"{number}.png").hardlink_to(tmp_path / "set" / "0.png")
    arguments = ["--source", tmp_path / "set", "--dest", tmp_path / "x.zip", "--resolution", "8"]
    with subprocess.Popen([sys.executable, TOOL, "convert", *arguments]) as process:
        wait_until(lambda: [*tmp_path.glob(".x.zip.*")] or process.poll() is not None)
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_help_is_quick_to_come(source):
    code = "import sys, pof3d.commands.dataset_tool; print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"
