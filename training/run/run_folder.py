"""The folder of a run: its name, and how to find it again.

OUTDIR/00003-toy-heads-gpus1-batch16-gamma1/
    config.json  log.txt  stats.jsonl  events.out.tfevents.*   what was asked, what happened
    checkpoint-000120.00.pt                                    all state, to go on
    network-000120.00.safetensors                              weights, to use elsewhere
    reals.png  fakes-000120.00.png  …                          pictures; numbers are kimg
"""

import re
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
    """The newest run of this description that left a checkpoint."""
    if outdir.is_dir():
        for folder in sorted(outdir.iterdir(), reverse=True):
            match = _numbered(folder)
            if match and match[2] == description and checkpoints(folder):
                return folder
    raise UserError(
        f"no run '{description}' with a checkpoint in {outdir}: leave out --resume to start one"
    )


def checkpoints(folder: Path) -> list[Path]:
    """Training checkpoints in a run's folder, newest first."""
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)


def rename_unused(path: Path) -> Path:
    """Rename a checkpoint so that the run forgets it but its owner does not lose it."""
    return path.rename(path.with_name(f"unused-{path.name}"))


def kimg_tag(kimg: float) -> str:
    """Sorts as numbers do, and tells steps apart where runs are short: 12.8 -> '000012.80'."""
    return f"{kimg:09.2f}"


def _numbered(path: Path) -> re.Match | None:
    return _NUMBERED.fullmatch(path.name) if path.is_dir() else None
