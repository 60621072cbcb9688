"""Files that the user named, to be written: checked before the work, one line where it fails."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError
from .files import atomic_write


def check_destination(path: Path, option: str = "--dest") -> None:
    """Find out before long work whether its result can be written.

    Args:
        path: the file to be.
        option: what the command line calls it.

    Raises:
        UserError: where there is no folder for it, where nothing can be written there, or where
            the name belongs to something that is no file.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{option} {path} exists and is not a file; choose another name")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}; make it first")
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent) as probe:
            probe.write(bytes(2**16))  # a full disk takes the name, but no data
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise _unwritable(path, option, error) from error


@contextlib.contextmanager
def write_destination(path: Path, option: str = "--dest") -> Iterator[Path]:
    """`atomic_write` for a file that the user named.

    Raises:
        UserError: where it cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            yield temporary
    except OSError as error:
        raise _unwritable(path, option, error) from error


def _unwritable(path: Path, option: str, error: OSError) -> UserError:
    return UserError(
        f"cannot write {option} {path}: {error.strerror or error}; choose another place"
    )
