"""Videos: objects of a trained network from cameras that move around them."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dnnlib import UserError, check_destination, write_destination
from training.cameras import intrinsics_from_fov
from training.networks.generator import Generator
from training.outputs.figures import balanced_columns, enlarge, tile
from training.outputs.objects import Objects

FORMATS = (".gif", ".mp4")
LARGEST_SIDE = 8192  # pixels of a frame; what players show ends before


def swing(frames: int, yaw: float, pitch: float) -> Tensor:
    """(yaw, pitch) [frames, 2] in degrees: one round of an ellipse with these half axes."""
    angle = torch.arange(frames) * (2 * math.pi / frames)
    return torch.stack([yaw * angle.sin(), pitch * angle.cos()], dim=1)


def turntable(frames: int, yaw: float, pitch: float) -> Tensor:
    """(yaw, pitch) [frames, 2] in degrees: all the way around, at a constant height.

    The camera starts in front; `yaw` does not count.
    """
    around = torch.arange(frames) * (360 / frames)
    return torch.stack([around, torch.full_like(around, pitch)], dim=1)


TRAJECTORIES = {"swing": swing, "turntable": turntable}


def check_video(dest: Path) -> None:
    """Raises UserError for a destination that is no video or cannot be written."""
    if dest.suffix.lower() not in FORMATS:
        raise UserError(f"--dest {dest}: the name must end in {' or '.join(FORMATS)}")
    check_destination(dest)


def check_frames(generator: Generator, count: int, render_size: int | None, factor: int) -> None:
    """Raises UserError where frames of `count` objects would be too large; see `orbit_frames`."""
    size = render_size or generator.raw_resolution
    if generator.superresolution is not None:
        size = generator.config.data.resolution
    side = balanced_columns(count) * size * factor
    if side > LARGEST_SIDE:
        raise UserError(
            f"a frame would be {side} pixels wide, more than {LARGEST_SIDE}: "
            "lower the number of --seeds, --render-size or --enlarge"
        )


@torch.no_grad()
def orbit_frames(
    objects: Objects,
    directions: Tensor,
    fov_deg: float | None = None,
    render_size: int | None = None,
    factor: int = 1,
) -> Iterator[Image.Image]:
    """Frames with a tile for each object, one frame for each direction.

    Args:
        objects: what is seen.
        directions: (yaw, pitch) [F, 2] in degrees around the canonical view.
        fov_deg: field of view in degrees; None: the network's.
        render_size: pixels a side of the rendering; None: as trained.
        factor: every pixel is repeated so often in both directions.
    """
    lens = None if fov_deg is None else intrinsics_from_fov(fov_deg)
    for pose in objects.generator.pose_from_degrees(directions).split(1):
        image = objects.render(pose, lens, render_size).select(0).image
        yield tile(enlarge(image.cpu(), factor))


def save_video(dest: Path, frames: Iterator[Image.Image], count: int, fps: int) -> None:
    """Write a .gif, which repeats for ever, or an .mp4.

    Raises:
        UserError: where it cannot be written.
    """
    bar = tqdm(frames, total=count, desc="orbit", unit="frame", disable=None)
    pictures = [np.asarray(frame) for frame in bar]
    with write_destination(dest) as temporary:
        temporary.write_bytes(_encoded(pictures, dest.suffix.lower(), fps))


def _encoded(pictures: list[np.ndarray], extension: str, fps: int) -> bytes:
    options: dict[str, Any]
    if extension == ".gif":
        options = {"duration": 1000 / fps, "loop": 0}  # milliseconds, for ever
    else:
        options = {"fps": fps, "macro_block_size": 2}  # a larger one would change the size
    return imageio.imwrite("<bytes>", pictures, extension=extension, **options)
