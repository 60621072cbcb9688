"""Weights & Biases, where it is wanted: it gets whatever TensorBoard gets."""

import importlib.util
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dnnlib import UserError, atomic_write

ID_FILE = "wandb-id"  # in the run folder; a resumed run goes on in the same curves


def check_wandb(project: str | None) -> None:
    """Raises UserError where it is wanted but not installed."""
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb needs a package: pip install wandb, or leave the option out")


def start_wandb(project: str, folder: Path, config: dict[str, Any]) -> Callable[[], None]:
    """Mirror the TensorBoard events of a run folder that are written from now on.

    WANDB_MODE=offline keeps them in the folder, for `wandb sync`.

    Returns:
        What ends it.

    Raises:
        Exception: of whatever kind, where Weights & Biases cannot be reached or refuses.
    """
    import wandb

    run = wandb.init(
        project=project,
        id=_id_of(folder),
        resume="allow",
        name=folder.name,
        dir=str(folder),
        config=config,
        sync_tensorboard=True,
    )
    return run.finish


def _id_of(folder: Path) -> str:
    path = folder / ID_FILE
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(uuid.uuid4().hex)
    return path.read_text().strip()
