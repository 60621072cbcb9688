"""Writes data sets that `ImageDataset` reads."""

import contextlib
import fcntl
import glob
import io
import os
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dnnlib import UserError, atomic_write, signals_unwind
from training.data.archive import LABEL_FILE
from training.data.labels import camera_labels, label_file

_YOUNG = 60  # seconds; a temporary file so new may be about to be locked


def png_bytes(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


class DatasetWriter:
    """Adds images, in order, and other files to a zip that `ImageDataset` reads.

    Raises:
        UserError: where the zip cannot be written to.
    """

    def __init__(self, archive: zipfile.ZipFile, dest: Path):
        self._archive, self._dest = archive, dest
        self._count = 0

    def add_image(self, png: bytes) -> str:
        """Returns the name that the image got."""
        name = f"{self._count // 1000:05d}/img{self._count:08d}.png"
        self._count += 1
        self.add_file(name, png)
        return name

    def add_labels(
        self, names: Sequence[str], cam2world: np.ndarray, intrinsics: np.ndarray
    ) -> None:
        """Add the cameras of N images, [N, 4, 4] and [N, 3, 3], which training can be given."""
        labels = camera_labels(cam2world, intrinsics)
        self.add_file(LABEL_FILE, label_file(zip(names, labels, strict=True)))

    def add_file(self, name: str, data: bytes) -> None:
        """Add a file as it is."""
        try:
            # A fixed date: same data, same bytes.
            self._archive.writestr(zipfile.ZipInfo(name), data)
        except OSError as error:
            raise _cannot_write(self._dest, error) from error


@contextlib.contextmanager
def dataset_writer(dest: str | os.PathLike) -> Iterator[DatasetWriter]:
    """A writer whose zip (uncompressed: PNGs are) appears at `dest` whole or not at all.

    Whoever is terminated meanwhile leaves nothing; what a killed one left, the next one removes.

    Raises:
        UserError: where `dest` cannot be written; before any work where that can be known.
    """
    dest = Path(dest)
    if not dest.parent.is_dir():
        raise UserError(f"cannot write {dest}: there is no folder {dest.parent}")
    if dest.is_dir():
        raise UserError(f"cannot write {dest}: a folder has this name")
    _remove_abandoned(dest)
    failure: BaseException | None = None
    try:
        with signals_unwind(), atomic_write(dest) as temporary, _locked_zip(temporary) as zip:
            try:
                yield DatasetWriter(zip, dest)
            except BaseException as error:
                failure = error
                raise
    except OSError as error:
        if error is failure:  # the caller's own, as a closed pipe
            raise
        raise _cannot_write(dest, error) from error


def _cannot_write(dest: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {dest}: {error.strerror or error}")


@contextlib.contextmanager
def _locked_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip that other writers know to be in use."""
    with open(path, "w+b") as file:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with zipfile.ZipFile(file, "w") as archive:
            yield archive


def _remove_abandoned(dest: Path) -> None:
    """Delete the temporary files of writers of the same zip that were killed."""
    for leftover in dest.parent.glob(f".{glob.escape(dest.name)}.*.tmp"):
        with contextlib.suppress(OSError), open(leftover, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - leftover.stat().st_mtime > _YOUNG:
                leftover.unlink()
