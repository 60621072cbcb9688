"""Latents and poses of single objects as files: what a projection found, to be rendered again.

A file is an `.npz` with `w` [1, num_ws, w_dim], the name and shape that StyleGAN's and EG3D's
projectors write, and `pose` [1, 2], (h, v) in radians, which theirs lack.
"""

import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError, atomic_write


class StoredLatent(NamedTuple):
    """ws: [1, num_ws, w_dim]. pose: [1, 2] in radians; None where the file has none."""

    ws: Tensor
    pose: Tensor | None


def save_latent(path: str | os.PathLike, ws: Tensor, pose: Tensor) -> None:
    """Write the latent of one object, whole or not at all.

    Args:
        path: ends in .npz.
        ws: [num_ws, w_dim].
        pose: [2], (h, v) in radians.

    Raises:
        OSError: where the file cannot be written.
    """
    encoded = io.BytesIO()
    np.savez(encoded, w=ws[None].detach().cpu().numpy(), pose=pose[None].detach().cpu().numpy())
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def load_latent(path: str | os.PathLike) -> StoredLatent:
    """Read the latent of one object, in float32 in main memory.

    Raises:
        UserError: for a file that is missing or no latent.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stored = {
                name: np.asarray(arrays[name], np.float32)
                for name in ("w", "pose")
                if name in arrays
            }
    except OSError as error:
        raise UserError(f"cannot read latent {path}: {error.strerror or 'not an .npz'}") from error
    except Exception as error:  # numpy and zipfile raise whatever a broken file leads them to
        raise UserError(f"{path} is no latent: `project.py` writes such .npz files") from error
    ws, pose = stored.get("w"), stored.get("pose")
    fits = ws is not None and ws.ndim == 3 and len(ws) == 1 and np.isfinite(ws).all()
    fits_pose = pose is None or (pose.shape == (1, 2) and np.isfinite(pose).all())
    if ws is None or not fits or not fits_pose:
        raise UserError(
            f"{path} is no latent of one object (w: [1, num_ws, w_dim], pose: [1, 2]); "
            "`project.py` writes such files"
        )
    return StoredLatent(torch.from_numpy(ws), None if pose is None else torch.from_numpy(pose))
