"""Training checkpoints (.pt): all state that a resume needs. Nothing in them is executed."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dnnlib import UserError, atomic_write, first_line
from training.config import Config, config_json
from training.files.network_file import FORMAT_VERSION, refuse_newer

CHECKPOINT_FORMAT = "pof3d-training"


def copy_in_main_memory(state: Any) -> Any:
    """A copy of nested containers that training does not change any more, nor a GPU holds."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: copy_in_main_memory(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(copy_in_main_memory, state))
    return state


def save_checkpoint(path: Path, state: Mapping[str, Any], config: Config) -> None:
    """Write all training state atomically. state: tensors, numbers, strings and their containers.

    Raises OSError when the disk is full.
    """
    record = {
        "format": CHECKPOINT_FORMAT,
        "format_version": FORMAT_VERSION,
        "config": config_json(config),
        **state,
    }
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save(record, file)
        except RuntimeError as error:  # what torch makes of an error in file.write
            raise error.__context__ or error from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote. Raises UserError unless every byte of it is there."""
    try:
        with zipfile.ZipFile(path) as archive:
            flipped = archive.testzip()  # torch.load does not look at checksums
        if flipped:
            raise zipfile.BadZipFile(f"wrong checksum of {flipped}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever these readers raise on a broken file
        raise UserError(f"{path} is damaged ({first_line(error)})") from error
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is not a training checkpoint")
    return state


class Found(NamedTuple):
    """A checkpoint that is whole. faults: what is wrong with each of the newer ones."""

    path: Path
    state: dict[str, Any]
    faults: list[str]


def load_newest(paths: Sequence[Path]) -> Found:
    """The first of `paths` (newest first) that is whole.

    Raises UserError when none is, and when newer code wrote it.
    """
    faults: list[str] = []
    for path in paths:
        try:
            state = load_checkpoint(path)
        except UserError as error:
            faults.append(str(error))
            continue
        refuse_newer(path, state["format_version"])
        return Found(path, state, faults)
    raise UserError("; ".join([*faults, "no checkpoint is left: start the run anew"]))
