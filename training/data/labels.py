"""The camera labels of a data set, its `dataset.json`."""

import json
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from training.data.archive import (
    LABEL_FILE,
    DatasetArchive,
    UnreadableError,
    first_of,
    one_line,
    printable,
)

LABEL_LENGTH = 25  # cam2world, 16 numbers, then intrinsics, 9; both row by row

_LARGEST = float(np.finfo(np.float32).max)
_TOLERANCE = 1e-2  # of rotations: labels are often rounded to a few digits
_LARGEST_FOCAL = 100.0  # image widths, a view of 0.6 degrees; numbers of pixels are larger
_LARGEST_SHIFT = 2.0  # image widths of the principal point from the middle


class Labels(NamedTuple):
    """What the label files of a data set say.

    Attributes:
        cameras: sound labels of images, by the image's name. None for a data set without camera
            labels: no file, "labels": null, or labels of another kind (class labels).
        faults: one line on each fault, of the file or of an image's label.
        faulty: the images without a sound label, in a data set with camera labels.
        notes: one line on whatever nobody reads.
    """

    cameras: dict[str, list[float]] | None
    faults: list[str]
    faulty: set[str]
    notes: list[str]


def camera_labels(cam2world: np.ndarray, intrinsics: np.ndarray) -> list[list[float]]:
    """The labels of N cameras, [N, 4, 4] and [N, 3, 3] in image widths."""
    return np.concatenate([cam2world.reshape(-1, 16), intrinsics.reshape(-1, 9)], axis=1).tolist()


def label_file(labels: Iterable[tuple[str, list[float] | None]]) -> bytes:
    """The contents of `dataset.json`: names of images, and their labels."""
    return json.dumps({"labels": list(labels)}).encode()


def read_labels(archive: DatasetArchive) -> Labels:
    """The labels of `dataset.json`, or of those one folder down, whose names begin there."""
    found: dict[str, Any] = {}
    faults, notes = [], []
    for file in archive.label_files():
        try:
            found.update(_resolved(archive, file))
        except (UnreadableError, ValueError, LookupError, TypeError, RecursionError) as error:
            faults.append(
                f'{printable(file)} is not of the form {{"labels": [[name, numbers], …]}} '
                f"({one_line(error)})"
            )
        if file != LABEL_FILE:
            notes.append(f"labels are those of {printable(file)}")
    if faults or not found:
        return Labels(None, faults, set(), notes)
    if not any(_has_form(label) for label in found.values()):
        notes.append(
            f"{LABEL_FILE} has no camera labels, which are lists of {LABEL_LENGTH} numbers; "
            "it is not used"
        )
        return Labels(None, [], set(), notes)
    return _examined(archive, found, notes)


def _resolved(archive: DatasetArchive, file: str) -> Iterator[tuple[str, Any]]:
    """Names in the data set, and labels, of one file."""
    entries = json.loads(archive.read(file))["labels"]
    folder = PurePosixPath(file).parent
    for name, label in _checked(entries):
        inside = str(folder / name)
        yield (inside if archive.exists(inside) else name), label


def _checked(entries: object) -> Iterator[tuple[str, Any]]:
    if entries is None:
        return
    if not isinstance(entries, list):
        raise TypeError(f"labels are not a list but of type {type(entries).__name__}")
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise TypeError(f"{printable(json.dumps(entry))[:60]} is not a name and a label")
        yield entry[0], entry[1]


def _examined(archive: DatasetArchive, found: dict[str, Any], notes: list[str]) -> Labels:
    """Sort labels of images into sound and faulty ones; mention those of no image."""
    names = archive.image_names()
    cameras, faults = {}, {}
    for name in names:
        if name not in found:
            faults[name] = f"{LABEL_FILE}: no label for image {printable(name)}"
        elif fault := label_fault(found[name]):
            faults[name] = f"{LABEL_FILE}: label of {printable(name)} {fault}"
        else:
            cameras[name] = found[name]
    if surplus := sorted(found.keys() - set(names)):
        fault = "is no image" if archive.exists(surplus[0]) else "does not exist"
        notes.append(f"{LABEL_FILE}: label for {first_of(surplus)}, which {fault}")
    return Labels(cameras, list(faults.values()), set(faults), notes)


def label_fault(label: object) -> str | None:
    """What makes a label no camera: 25 finite numbers, a rotation, intrinsics in image widths."""
    if not _has_form(label) or not all(map(_is_finite, label)):
        return f"is not a list of {LABEL_LENGTH} finite numbers"
    numbers = np.array(label, dtype=np.float64)
    if not _is_rigid(numbers[:16].reshape(4, 4)):
        return "has a cam2world that is not a rotation and a position"
    return _intrinsics_fault(numbers[16:].reshape(3, 3))


def _has_form(label: object) -> TypeGuard[list[Any]]:
    return isinstance(label, list) and len(label) == LABEL_LENGTH


def _is_finite(number: object) -> bool:
    """Also in float32, in which networks compute."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return -_LARGEST <= number <= _LARGEST


def _is_rigid(cam2world: np.ndarray) -> bool:
    rotation = cam2world[:3, :3]
    if np.abs(rotation).max() > 1 + _TOLERANCE:
        return False
    return (
        np.allclose(rotation @ rotation.T, np.eye(3), atol=_TOLERANCE)
        and np.linalg.det(rotation) > 0
        and np.allclose(cam2world[3], (0, 0, 0, 1), atol=_TOLERANCE)
    )


def _intrinsics_fault(intrinsics: np.ndarray) -> str | None:
    if not np.allclose(intrinsics[[1, 2, 2, 2], [0, 0, 1, 2]], (0, 0, 0, 1), atol=1e-6):
        return "has intrinsics that are not of the form [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
    focal, principal = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    if (focal <= 0).any():
        return f"has focal lengths that are not positive, {focal[0]:g} and {focal[1]:g}"
    if (focal > _LARGEST_FOCAL).any() or (np.abs(principal - 0.5) > _LARGEST_SHIFT).any():
        return (
            "has intrinsics that are not in image widths: focal lengths "
            f"{focal[0]:g}, {focal[1]:g}, principal point {principal[0]:g}, {principal[1]:g}"
        )
    return None
