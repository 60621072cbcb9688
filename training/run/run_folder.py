"""The folder of a run: its name, and how to find it again.

OUTDIR/00003-toy-heads-gpus1-batch16-gamma1/
    config.json  log.txt  stats.jsonl  events.out.tfevents.*   what was asked, what happened
    checkpoint-000120.00.pt                                    all state, to go on
    network-000120.00.safetensors                              weights, to use elsewhere
    reals.png  fakes-000120.00.png  …                          pictures; numbers are kimg
"""

import contextlib
import fcntl
import math
import re
from collections.abc import Iterator
from pathlib import Path

from dnnlib import UserError

_NUMBERED = re.compile(r"(\d{5})-(.+)")


def new_run_folder(outdir: Path, description: str) -> Path:
    """Make OUTDIR/NNNNN-description with the next free number."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        while True:
            numbers = [int(match[1]) for match in map(_numbered, outdir.iterdir()) if match]
            folder = outdir / f"{max(numbers, default=-1) + 1:05d}-{description}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # another run was faster
                continue
    except OSError as error:
        raise UserError(
            f"cannot write to --outdir {outdir}: {error.strerror}; choose another folder"
        ) from error


def latest_run_folder(outdir: Path, description: str) -> Path:
    """The newest run of this description that left a checkpoint.

    The number of processes in the description may differ: a run may resume with another.

    Raises:
        UserError: where there is none.
    """
    if outdir.is_dir():
        for folder in sorted(outdir.iterdir(), reverse=True):
            match = _numbered(folder)
            same = match and _without_gpus(match[2]) == _without_gpus(description)
            if same and checkpoints(folder):
                return folder
    raise UserError(
        f"no run '{description}' with a checkpoint in {outdir}: leave out --resume to start one, "
        "or use --resume auto, which does either"
    )


def _without_gpus(description: str) -> str:
    return re.sub(r"-gpus\d+-", "-", description, count=1)


def checkpoints(folder: Path) -> list[Path]:
    """Training checkpoints in a run's folder, newest first."""
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def networks(folder: Path) -> list[Path]:
    """Network files in a run's folder, newest first."""
    return sorted(folder.glob("network-*.safetensors"), reverse=True)


def surplus_networks(folder: Path, newest: int, every_kimg: float) -> list[Path]:
    """Network files beyond the `newest` ones, but for one every `every_kimg` (0: for none)."""
    return [path for path in networks(folder)[newest:] if not _is_multiple(path, every_kimg)]


def _is_multiple(path: Path, every_kimg: float) -> bool:
    if not every_kimg:
        return False
    periods = float(path.stem.removeprefix("network-")) / every_kimg
    return periods >= 0.5 and abs(periods - round(periods)) * every_kimg < 0.01


@contextlib.contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Keep other processes from training in a folder; None does nothing.

    The system releases the lock when the process ends, however it ends.

    Raises:
        UserError: where another process holds it.
    """
    if folder is None:
        yield
        return
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is training in {folder}: wait for its end, or start a new run"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


def rename_unused(path: Path) -> Path:
    """Rename a checkpoint so that the run forgets it but its owner does not lose it."""
    return path.rename(path.with_name(f"unused-{path.name}"))


def kimg_tag(kimg: float) -> str:
    """Sorts as numbers do, and tells steps apart where runs are short: 12.8 -> '000012.80'."""
    return f"{kimg:09.2f}"


def images_in(kimg: float) -> int:
    """Thousands of images as a number of images; 0.036000000000000004, a sum, is 36 of them."""
    return math.ceil(round(kimg * 1000, 6))


def _numbered(path: Path) -> re.Match | None:
    return _NUMBERED.fullmatch(path.name) if path.is_dir() else None
