"""Moments of features, summed as they come; and statistics of data sets, computed once."""

import hashlib
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib import atomic_write, cache_dir
from torch_utils import distributed

_ROWS_AT_ONCE = 4096  # copied to float64


class Moments:
    """Mean and covariance of rows [B, F], in float64, without keeping the rows."""

    def __init__(self, count: float, total: Tensor, outer: Tensor):
        """Take the count of rows, their sum [F], and the sum of their outer products [F, F]."""
        self.count, self.total, self.outer = count, total, outer

    @classmethod
    def empty(cls, dim: int, device: torch.device | str = "cpu") -> "Moments":
        """The moments of no rows of length `dim`."""
        total = torch.zeros(dim, dtype=torch.float64, device=device)
        return cls(0, total, torch.zeros(dim, dim, dtype=torch.float64, device=device))

    @classmethod
    def of(cls, rows: Tensor) -> "Moments":
        """The moments of rows [B, F]."""
        moments = cls.empty(rows.shape[1], rows.device)
        for part in rows.split(_ROWS_AT_ONCE):
            moments.add(part)
        return moments

    def add(self, rows: Tensor) -> None:
        """Count further rows [B, F]."""
        rows = rows.to(self.total)
        self.count += len(rows)
        self.total += rows.sum(dim=0)
        self.outer += rows.mT @ rows

    def sum_over_processes(self) -> None:
        """Count the rows of all processes, in each of them."""
        count = torch.tensor(float(self.count), dtype=torch.float64, device=self.total.device)
        for tensor in (count, self.total, self.outer):
            distributed.all_reduce_sum(tensor)
        self.count = count.item()

    @property
    def mean(self) -> Tensor:
        """[F], float64."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """[F, F], float64; divided by N, as in the field's code."""
        return self.outer / self.count - torch.outer(self.mean, self.mean)


def content_hash(path: str | os.PathLike) -> str:
    """A hash of the names and contents of a zip's or a folder's files; packing does not change it.

    Contents count by CRC-32 and size, which a zip lists without being read. Files that cannot be
    read, as links to nowhere, count by their names alone.
    """
    path = Path(path)
    if path.is_dir():
        entries = [(file.relative_to(path).as_posix(), *_checksum(file)) for file in _files(path)]
    else:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        entries = [(info.filename, info.file_size, info.CRC) for info in infos]
    return hashlib.sha256(repr(sorted(entries)).encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """All files below, those of linked folders too; a folder that links to one above it, once."""
    visited = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(root)
        if place in visited:
            folders.clear()
            continue
        visited.add(place)
        yield from (Path(root, name) for name in names)


def _checksum(file: Path) -> tuple[int, int]:
    """Size and CRC-32. What is no file, as a link to nowhere or a pipe, has none."""
    if not file.is_file():
        return 0, 0
    data = file.read_bytes()
    return len(data), zlib.crc32(data)


def cached_on_disk(key: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What compute() returns, from the cache when it was computed before under the same key.

    Called by all processes, as compute is; the first one writes. A damaged file is computed anew,
    and a cache that cannot be written costs time, not the result.
    """
    path = cache_dir("metrics") / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"
    found = _load(path)
    missing = distributed.any_process(found is None)
    if found is not None and not missing:
        return found
    arrays = compute()
    if distributed.rank() == 0:
        try:
            with atomic_write(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            message = f"WARNING: cannot keep {path} ({error.strerror or error})"
            print(message, file=sys.stderr)
    return arrays


def _load(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path) as arrays:  # a zip: every array's checksum is verified
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
