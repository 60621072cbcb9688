"""Files that are either whole or absent, and the folder for things that can be made again."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError


def cache_dir(*parts: str) -> Path:
    """Folder for files that can be rebuilt; made when missing.

    `POF3D_CACHE_DIR` chooses it, else `XDG_CACHE_HOME`/pof3d, else ~/.cache/pof3d.
    """
    root = os.environ.get("POF3D_CACHE_DIR")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "pof3d"
    path = base.expanduser().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the cache folder {path}: {error.strerror}; set POF3D_CACHE_DIR to a "
            "folder you can write to"
        ) from error
    return path


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path; on success its file takes the place of `path`, else it vanishes.

    The data is on disk (fsync) before the rename, so a crash leaves the old file or the new one,
    never half of one; at worst a leftover that `remove_leftovers` finds.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # temporary files are readable by their owner alone
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed in `atomic_write` left in a folder.

    Only for a folder in which nobody else is writing.
    """
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def append_line(path: str | os.PathLike, line: str) -> None:
    """Add a line to a text file, whole or not at all. Raises OSError."""
    append_bytes(path, f"{line}\n".encode())


def append_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Add to the end of a file all of the data or, when the disk is full, nothing.

    Raises OSError.
    """
    with open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            written = file.write(data)
            if written < len(data):  # the disk is full; the rest tells in which way
                file.write(data[written:])
        except OSError:
            file.truncate(size)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; folders cannot be opened for this on every system."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
