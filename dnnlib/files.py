"""Files that are either whole or absent, and the folder for things that can be made again."""

import contextlib
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError

_CHOSEN = "POF3D_CACHE_DIR"


def cache_dir(*parts: str) -> Path:
    """Folder for files that can be rebuilt; made when missing.

    `POF3D_CACHE_DIR` chooses it, else `XDG_CACHE_HOME`/pof3d, else ~/.cache/pof3d. Where there is
    no home, or none that can be written to, a folder among the temporary files takes its place,
    with a warning.

    Args:
        parts: names of folders within.

    Raises:
        UserError: where a folder that was chosen, or every other, cannot be made.
    """
    chosen = os.environ.get(_CHOSEN)
    try:
        base = Path(chosen).expanduser() if chosen else _usual_cache()
        return _writable_folder(base.joinpath(*parts))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        if not chosen:
            return _writable_folder(_temporary_cache(error).joinpath(*parts))
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot make the cache folder {base}: {reason}; set {_CHOSEN} to a folder you can "
            "write to"
        ) from error


def _usual_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pof3d"


def _writable_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return path


def _temporary_cache(reason: Exception) -> Path:
    """A folder of this user among the temporary files; other processes started from here share it.

    Compiled code is loaded from the cache, so a folder that somebody else made there will not do.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    try:
        path = Path(tempfile.gettempdir()) / f"pof3d-{user}"
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise UserError(f"no folder to keep files in ({error}): set {_CHOSEN} to one") from error
    if not stat.S_ISDIR(found.st_mode) or (user and found.st_uid != user) or found.st_mode & 0o022:
        raise UserError(f"{path} is another user's: set {_CHOSEN} to a folder of your own")
    print(
        f"WARNING: no cache folder in a home ({getattr(reason, 'strerror', None) or reason}): "
        f"keeping files in {path}; {_CHOSEN} chooses another",
        file=sys.stderr,
    )
    os.environ[_CHOSEN] = str(path)  # and the warning comes once
    return path


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path; on success its file takes the place of `path`, else it vanishes.

    The data is on disk (fsync) before the rename, so a crash leaves the old file or the new one,
    never half of one; at worst a leftover that `remove_leftovers` finds.

    Raises:
        OSError: where the folder is missing, full or read-only; nothing has changed then.
    """
    path = Path(path)
    prefix = f".{path.name[:32]}."  # what is added must not make a long name too long
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
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
    """Add a line to a text file, whole or not at all; file names that are no UTF-8 are escaped.

    Raises:
        OSError: where the file cannot be written; it is then as it was.
    """
    data = f"{line}\n".encode(errors="backslashreplace")
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
