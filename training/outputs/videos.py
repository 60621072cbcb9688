"""Videos: objects of a trained network from cameras that move around them."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dnnlib import UserError, check_destination, write_destination
from torch_utils.out_of_memory import explain_out_of_memory
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


@torch.no_grad()
def orbit_frames(
    generator: Generator,
    seeds: Sequence[int],
    directions: Tensor,
    truncation: float = 1,
    render_size: int | None = None,
    factor: int = 1,
) -> Iterator[Image.Image]:
    """Frames with a tile for each seed, one frame for each direction.

    Args:
        generator: the generator.
        seeds: of the objects.
        directions: (yaw, pitch) [F, 2] in degrees around the canonical view.
        truncation: psi.
        render_size: pixels a side of the rendering; None: as trained.
        factor: every pixel is repeated so often in both directions.

    Raises:
        UserError: for frames that are too large, or where memory runs out.
    """
    size = render_size or generator.raw_resolution
    if generator.superresolution is not None:
        size = generator.config.data.resolution
    side = balanced_columns(len(seeds)) * size * factor
    if side > LARGEST_SIDE:
        raise UserError(
            f"a frame would be {side} pixels wide, more than {LARGEST_SIDE}: "
            "lower the number of --seeds, --render-size or --enlarge"
        )
    remedy = f"lower --render-size (now {size}) or the number of --seeds (now {len(seeds)})"
    with explain_out_of_memory(remedy):
        objects = Objects.from_seeds(generator, seeds, truncation)
        for pose in generator.pose_from_degrees(directions).split(1):
            image = objects.render(pose, resolution=render_size).select(0).image
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
