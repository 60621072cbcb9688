"""What `dataset_tool.py` does: pack photographs into a data set, and look for its faults."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from dnnlib import UserError
from training.data.archive import (
    GROUND_TRUTH,
    LABEL_FILE,
    DatasetArchive,
    UnreadableError,
    printable,
)
from training.data.geometry import squared_label, to_square, upright_label
from training.data.labels import Labels, label_file, read_labels
from training.data.writer import dataset_writer, png_bytes

T = TypeVar("T")


class Conversion(NamedTuple):
    """How many images were written, and how many left out as bad."""

    written: int
    skipped: int


class _Converted(NamedTuple):
    png: bytes
    label: list[float] | None


def convert(
    source: str | os.PathLike,
    dest: Path,
    resolution: int,
    crop: str = "center",
    max_images: int | None = None,
    skip_bad: bool = False,
) -> Conversion:
    """Square, resize and pack images; their camera labels follow every crop and turn.

    Labels of no image and labels that are no cameras stay behind; the truth of a toy set comes
    along when all its images do.

    Args:
        source: zip or folder.
        dest: the zip to write.
        resolution: side in pixels.
        crop: 'center' or 'pad', see `square_corner`.
        max_images: only the first so many by name.
        skip_bad: leave out images that cannot be read or whose label is faulty, and labels that
            cannot be read at all, instead of stopping.

    Raises:
        UserError: for bad data, or where the zip cannot be written.
    """
    archive = DatasetArchive(source)
    labels = _usable_labels(archive, skip_bad)
    names = archive.image_names()
    convert_one = functools.partial(_convert_one, archive, labels, resolution, crop)
    new_labels, skipped = [], 0
    with dataset_writer(dest) as writer:
        for converted in _in_threads(convert_one, names[:max_images], "convert"):
            if isinstance(converted, _Converted):
                new_labels.append((writer.add_image(converted.png), converted.label))
            elif skip_bad:
                tqdm.write(f"skipped: {converted}")
                skipped += 1
            else:
                raise UserError(
                    f"{printable(source)}: {converted}; --skip-bad leaves such images out"
                )
        if not new_labels:
            raise UserError(f"{printable(source)}: not one image could be read")
        if labels.cameras is not None:
            writer.add_file(LABEL_FILE, label_file(new_labels))
        if len(new_labels) == len(names) and archive.exists(GROUND_TRUTH):
            writer.add_file(GROUND_TRUTH, archive.read(GROUND_TRUTH))
    return Conversion(len(new_labels), skipped)


def _convert_one(
    archive: DatasetArchive, labels: Labels, resolution: int, crop: str, name: str
) -> _Converted | UserError:
    """An image and its label, or why there is none."""
    if name in labels.faulty:
        return UserError(f"image {printable(name)} has no sound camera label")
    try:
        image, orientation = archive.read_photograph(name)
    except UnreadableError as error:
        return error
    label = None
    if labels.cameras is not None:
        label = upright_label(labels.cameras[name], orientation)
        label = squared_label(label, *image.size, crop)
    return _Converted(png_bytes(to_square(image, resolution, crop)), label)


def _usable_labels(archive: DatasetArchive, skip_bad: bool) -> Labels:
    """Labels without faults, or with those that `skip_bad` deals with."""
    labels = read_labels(archive)
    for note in [*archive.notes, *labels.notes]:
        tqdm.write(f"note: {note}")
    if labels.faults and not skip_bad:
        raise UserError(
            f"{printable(archive.path)}: {labels.faults[0]}; `dataset_tool.py check` lists all "
            "faults, --skip-bad leaves such labels out"
        )
    if labels.cameras is None:
        for fault in labels.faults:
            tqdm.write(f"skipped: {fault}")
    return labels


class Report(NamedTuple):
    """What `check` found.

    Attributes:
        images: how many there are.
        labeled: whether there are camera labels.
        sides: shorter sides, in pixels, of the images that can be read.
        faults: one line each.
        notes: one line on whatever is not read.
    """

    images: int
    labeled: bool
    sides: list[int]
    faults: list[str]
    notes: list[str]


def check(path: str | os.PathLike) -> Report:
    """Read every image of a data set and its labels.

    Raises:
        UserError: where there is no data set.
    """
    archive = DatasetArchive(path)
    labels = read_labels(archive)
    labeled = labels.cameras is not None

    def examine(name: str) -> int | UserError:
        try:
            return min(archive.read_image(name, labeled).size)
        except UnreadableError as error:
            return error

    names = archive.image_names()
    results = list(_in_threads(examine, names, "check"))
    faults = [*labels.faults, *(str(x) for x in results if isinstance(x, UserError))]
    sides = [result for result in results if isinstance(result, int)]
    return Report(len(names), labeled, sides, faults, [*archive.notes, *labels.notes])


def _in_threads(
    function: Callable[[str], T], names: Sequence[str], description: str
) -> Iterator[T]:
    """Function of each name, in order, with a progress bar where standard error is a terminal.

    Pillow works outside Python's lock.
    """
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(function, names)
        yield from tqdm(results, total=len(names), desc=description, unit="img", disable=None)
