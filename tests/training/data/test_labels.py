import json
import math
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib import UserError
from tests.training.data.numbered import LABEL, save_numbered, write_labels
from training.cameras import cam2world_from_pose
from training.data.archive import DatasetArchive
from training.data.convert import check
from training.data.dataset import ImageDataset
from training.data.geometry import upright_label
from training.data.labels import label_fault, read_labels


def changed(**numbers: Any) -> list[Any]:
    """LABEL with number i changed, given as n0 to n24."""
    label: list[Any] = list(LABEL)
    for name, number in numbers.items():
        label[int(name[1:])] = number
    return label


def camera(h: float, v: float) -> list[float]:
    return cam2world_from_pose(torch.tensor([[h, v]]), 2.7, (0, 0, 0)).flatten().tolist()


SOUND = [
    LABEL,
    [round(number, 3) for number in camera(1.1, 1.3)] + LABEL[16:],
    changed(n16=0.3, n20=50),
    changed(n18=-0.4, n21=1.4),  # the crop of an object at the edge
    changed(n3=1000, n7=-1000),
    [int(x) for x in LABEL],
]
IMPOSSIBLE = [
    (changed(n3=1e39), "finite"),
    (changed(n3=math.inf), "finite"),
    (changed(n16=math.nan), "finite"),
    (changed(n3=10**400), "finite"),
    (changed(n0=True), "finite"),
    (changed(n0="1"), "finite"),
    (changed(n0=None), "finite"),
    (LABEL[:24], "finite"),
    (changed(n0=2), "rotation"),
    (changed(n0=-1), "rotation"),  # a mirror
    (changed(n0=0), "rotation"),
    (changed(n1=0.2), "rotation"),
    (changed(n0=3e38, n5=3e38), "rotation"),
    (changed(n15=0), "rotation"),
    (changed(n12=1), "rotation"),
    (changed(n16=1092, n18=256, n20=1092, n21=256), "image widths"),
    (changed(n18=32, n21=32), "image widths"),
    (changed(n16=1092, n20=1092), "image widths"),
    (changed(n16=-4.2), "not positive"),
    (changed(n20=0), "not positive"),
    (changed(n24=0), "form"),
    (changed(n19=1), "form"),
    ([0.0] * 25, "rotation"),
]


@pytest.mark.parametrize("label", SOUND)
def test_cameras_that_can_be(label):
    assert label_fault(label) is None


@pytest.mark.parametrize(("label", "fault"), IMPOSSIBLE)
def test_impossible_cameras_are_reported_and_not_trained_on(tmp_path, label, fault):
    write_labels(save_numbered(tmp_path, 2), [["000.png", LABEL], ["001.png", label]])
    (found,) = check(tmp_path).faults
    assert "label of 001.png" in found and fault in found
    for use in ("optional", "required"):
        with pytest.raises(UserError, match=f"label of 001.png .*{fault}"):
            ImageDataset(tmp_path, labels=use)
    assert ImageDataset(tmp_path, labels="ignore").all_cam2world is None


@pytest.mark.parametrize("label", [math.nan, 1e39])
def test_a_set_of_nothing_but_impossible_cameras_is_not_one_without(tmp_path, label):
    write_labels(save_numbered(tmp_path, 1), [["000.png", [label] * 25]])
    with pytest.raises(UserError, match="label of 000.png"):
        ImageDataset(tmp_path)


@pytest.mark.parametrize("label", [0, "cat", [0.0, 1.0], None, {"class": 1}])
def test_labels_that_are_no_cameras_are_ignored_with_a_note(tmp_path, label):
    write_labels(save_numbered(tmp_path, 2), [["000.png", label], ["001.png", label]])
    dataset = ImageDataset(tmp_path)
    assert dataset.all_intrinsics is None and "no camera labels" in dataset.notes[0]
    assert check(tmp_path).faults == []
    with pytest.raises(UserError, match="has no camera labels .*lists of 25 numbers"):
        ImageDataset(tmp_path, labels="required")


def test_labels_of_no_image_are_ignored_with_a_note(tmp_path):
    write_labels(
        save_numbered(tmp_path, 1), [["000.png", LABEL], ["gone.png", LABEL], ["too.png", None]]
    )
    dataset = ImageDataset(tmp_path, labels="required")
    assert dataset.all_intrinsics.shape == (1, 3, 3)
    assert dataset.notes == ["dataset.json: label for gone.png and 1 more, which does not exist"]


@pytest.mark.parametrize("use", ["optional", "required"])
def test_a_set_without_labels(tmp_path, use):
    save_numbered(tmp_path, 1)
    if use == "required":
        with pytest.raises(UserError, match="has no camera labels"):
            ImageDataset(tmp_path, labels=use)
    else:
        assert ImageDataset(tmp_path, labels=use).notes == []


def test_an_unknown_use_of_labels_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown use of labels 'maybe'"):
        ImageDataset(save_numbered(tmp_path, 1), labels="maybe")


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"labels": 3}',
    b'{"labels": {"ab": 1}}',
    b'{"labels": [["000.png"]]}',
    b'{"labels": ["ab"]}',
    b'{"labels": [[1, 2]]}',
    b"\xff\xfe\0",
    b'{"labels": "\xe9"}',
    b'{"labels": ' + b"[" * 200_000,
    b'{"labels": [["000.png", [' + b"9" * 5000 + b"]]]}",
]


@pytest.mark.parametrize("data", BROKEN)
def test_a_file_that_cannot_be_parsed_is_one_line(tmp_path, data):
    (save_numbered(tmp_path, 1) / "dataset.json").write_bytes(data)
    with pytest.raises(UserError, match="dataset.json is not of the form") as error:
        ImageDataset(tmp_path)
    assert str(error.value).isprintable() and len(str(error.value)) < 500
    assert len(check(tmp_path).faults) == 1
    ignoring = ImageDataset(tmp_path, labels="ignore")
    assert len(ignoring) == 1 and ignoring.notes == ["dataset.json is not used"]


@pytest.mark.parametrize("breakage", ["flags", "method", "checksum", "deflate"])
def test_a_file_that_cannot_be_unpacked_is_one_line(tmp_path, breakage):
    save_numbered(tmp_path / "set", 1)
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dataset.json", json.dumps({"labels": [["000.png", LABEL]]}))
        archive.write(tmp_path / "set" / "000.png", "000.png")
    data = bytearray(path.read_bytes())
    entry, content = data.index(b"PK\1\2"), 30 + len("dataset.json")
    match breakage:
        case "flags":  # encrypted
            data[6] = data[entry + 8] = 1
        case "method":
            data[8] = data[entry + 10] = 97
        case "checksum":
            data[entry + 16] ^= 1
        case "deflate":
            data[content : content + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(UserError, match="dataset.json") as error:
        ImageDataset(path)
    assert str(error.value).isprintable()


def test_labels_one_folder_down_are_found(tmp_path):
    for name, focal in (("cats", 3.0), ("dogs", 4.0)):
        save_numbered(tmp_path / name, 1)
        write_labels(tmp_path / name, [["000.png", changed(n16=focal)]])
    dataset = ImageDataset(tmp_path)
    assert dataset.all_intrinsics[:, 0, 0].tolist() == [3.0, 4.0]
    assert dataset.notes == [
        "labels are those of cats/dataset.json",
        "labels are those of dogs/dataset.json",
    ]
    write_labels(tmp_path, None)  # one at the top counts alone
    assert ImageDataset(tmp_path).all_intrinsics is None


def test_names_in_a_folders_labels_may_begin_at_the_top(tmp_path):
    save_numbered(tmp_path / "faces", 1)
    write_labels(tmp_path / "faces", [["faces/000.png", LABEL]])
    assert read_labels(DatasetArchive(tmp_path)).cameras == {"faces/000.png": LABEL}


TURNS = Image.Transpose
STORED = {  # how an upright image is stored for each orientation
    1: None, 2: TURNS.FLIP_LEFT_RIGHT, 3: TURNS.ROTATE_180, 4: TURNS.FLIP_TOP_BOTTOM,
    5: TURNS.TRANSPOSE, 6: TURNS.ROTATE_90, 7: TURNS.TRANSVERSE, 8: TURNS.ROTATE_270,
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_camera_still_sees_a_point_where_it_is(orientation):
    """Project with the camera of the stored pixels, turn the picture, project with the new one."""
    label = camera(1.2, 1.4)
    label += [2.0, 0.1, 0.45, 0, 2.2, 0.55, 0, 0, 1]
    point = np.array([0.21, 0.13, -0.05, 1])

    def project(label: list[float], point: np.ndarray) -> np.ndarray:
        camera = np.linalg.inv(np.reshape(label[:16], (4, 4))) @ point
        image = np.reshape(label[16:], (3, 3)) @ camera[:3]
        return image[:2] / image[2]

    size, stored = 2000, project(label, point)
    canvas = Image.new("L", (size, size))
    canvas.putpixel(tuple((stored * size).astype(int)), 255)
    undo = {6: TURNS.ROTATE_270, 8: TURNS.ROTATE_90}.get(orientation, STORED[orientation])
    upright = canvas if undo is None else canvas.transpose(undo)
    row, column = np.argwhere(np.asarray(upright))[0]

    turned = upright_label(label, orientation)
    assert label_fault(turned) is None
    mirrored = orientation in (2, 4, 5, 7)
    seen = project(turned, point * (-1, 1, 1, 1) if mirrored else point)
    np.testing.assert_allclose(seen, (np.array([column, row]) + 0.5) / size, atol=1e-3)
