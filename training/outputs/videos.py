"""Videos: objects of a trained network that turn before the camera, or into one another."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
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
from training.networks.generator import Generator, View
from training.outputs.figures import (
    balanced_columns,
    depth_colors,
    enlarge,
    normal_colors,
    tile,
)
from training.outputs.levels import silhouette_level
from training.outputs.meshes import Mesh, find_surface, largest_part
from training.outputs.objects import Objects, Selection
from training.outputs.shading import render_mesh

FORMATS = (".gif", ".mp4", ".webp")
LARGEST_SIDE = 8192  # pixels of a frame; what players show ends before
KEYFRAMES_AT_ONCE = 8  # whose planes are in memory


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


def spiral(frames: int, yaw: float, pitch: float) -> Tensor:
    """(yaw, pitch) [frames, 2] in degrees, twice around.

    The camera goes down from the height `pitch` to -`pitch` and up again; `yaw` does not count.
    """
    turn = torch.arange(frames) / frames
    return torch.stack([720 * turn, pitch * (2 * math.pi * turn).cos()], dim=1)


TRAJECTORIES = {"swing": swing, "turntable": turntable, "spiral": spiral}
IMAGE_MODES = ("image", "raw", "depth", "normals", "opacity")


@dataclass(frozen=True)
class Look:
    """How objects are shown: the options of `pof3d videos`.

    mode: of `IMAGE_MODES`. fov_deg: field of view in degrees; None: the network's. render_size:
    pixels a side of the rendering; None: as trained. enlarge: every pixel is repeated so often in
    both directions. columns: of tiles; None: close to a square. mesh: show the shaded surface
    beside each picture, from a grid of `shape_res` points a side.
    """

    mode: str = "image"
    fov_deg: float | None = None
    render_size: int | None = None
    enlarge: int = 1
    columns: int | None = None
    mesh: bool = False
    shape_res: int = 128

    def lens(self, generator: Generator) -> Tensor:
        """Intrinsics [3, 3]."""
        if self.fov_deg is None:
            return generator.intrinsics
        return intrinsics_from_fov(self.fov_deg).to(generator.intrinsics)

    def pictures(self, view: View, generator: Generator) -> Tensor:
        """What is shown of a view: [B, 3, H, W] in [-1, 1]."""
        if self.mode == "depth":
            return depth_colors(view.depth, view.opacity, generator.config)
        if self.mode == "normals":
            return normal_colors(view.depth, view.opacity, self.lens(generator))
        if self.mode == "opacity":
            return (view.opacity * 2 - 1).expand(-1, 3, -1, -1)
        return view.raw if self.mode == "raw" else view.image


def check_video(dest: Path) -> None:
    """Raises UserError for a destination that is no video or cannot be written."""
    if dest.suffix.lower() not in FORMATS:
        raise UserError(f"--dest {dest}: the name must end in {' or '.join(FORMATS)}")
    check_destination(dest)


def check_frames(generator: Generator, tiles: int, look: Look) -> None:
    """Raises UserError where frames of so many tiles would be too large."""
    size = look.render_size or generator.raw_resolution
    if generator.superresolution is not None and look.mode == "image":
        size = generator.config.data.resolution
    columns = look.columns or balanced_columns(tiles)
    side = max(columns * (1 + look.mesh), math.ceil(tiles / columns)) * size * look.enlarge
    if side > LARGEST_SIDE:
        raise UserError(
            f"a frame would be {side} pixels wide or high, more than {LARGEST_SIDE}: "
            "lower the number of --seeds, --render-size or --enlarge"
        )


@torch.no_grad()
def orbit_frames(objects: Objects, directions: Tensor, look: Look) -> Iterator[Image.Image]:
    """Frames with a tile for each object, one frame for each direction.

    Args:
        objects: what is seen.
        directions: (yaw, pitch) [F, 2] in degrees around the canonical view.
        look: how it is shown.
    """
    meshes = _Meshes(objects, look) if look.mesh else None
    for pose in objects.generator.pose_from_degrees(directions).split(1):
        pictures = _pictures(objects, pose, look)
        if meshes is not None:
            pictures = torch.cat([pictures, meshes.pictures(pose, pictures.shape[-1])], dim=-1)
        yield tile(enlarge(pictures, look.enlarge), look.columns)


@torch.no_grad()
def interpolation_frames(
    generator: Generator, keyframes: Tensor, directions: Tensor, look: Look
) -> Iterator[Image.Image]:
    """Frames in which every tile changes from one object into the next, and at last into the first.

    Args:
        generator: the generator.
        keyframes: ws [tiles, K, num_ws, w_dim].
        directions: (yaw, pitch) [F, 2] in degrees around the canonical view; F is a multiple of K.
        look: how it is shown, without meshes.
    """
    poses = generator.pose_from_degrees(directions).to(keyframes)
    for ws, pose in zip(closed_curve(keyframes, len(poses)), poses.split(1), strict=True):
        objects = Objects.from_ws(generator, ws, pose.expand(len(ws), 2))
        yield tile(enlarge(_pictures(objects, pose, look), look.enlarge), look.columns)


def closed_curve(keyframes: Tensor, count: int) -> Iterator[Tensor]:
    """`count` points of a smooth closed curve through keyframes [N, K, ...]: each [N, ...].

    A cubic spline whose tangent at a keyframe is half the way between its neighbors (Catmull and
    Rom 1974). The first point is the first keyframe.
    """
    total = keyframes.shape[1]
    for frame in range(count):
        start, t = divmod(frame * total / count, 1)
        before, here, there, after = (
            keyframes[:, (int(start) + step) % total] for step in (-1, 0, 1, 2)
        )
        curve = 2 * before - 5 * here + 4 * there - after
        twist = 3 * (here - there) + after - before
        yield here + ((there - before) * t + curve * t**2 + twist * t**3) / 2


@torch.no_grad()
def keyframe_ws(generator: Generator, selection: Selection, tiles: int) -> Tensor:
    """Ws [tiles, K, num_ws, w_dim] of selected objects, K for each tile.

    Raises:
        UserError: for a seed out of range.
    """
    parts = [some.objects(generator).ws for some in selection.batches(KEYFRAMES_AT_ONCE)]
    return torch.cat(parts).unflatten(0, (tiles, -1))


def _pictures(objects: Objects, pose: Tensor, look: Look) -> Tensor:
    """Each object from one pose [1, 2]: [B, 3, H, W] in main memory."""
    generator = objects.generator
    view = objects.render(pose, look.lens(generator), look.render_size).select(0)
    return look.pictures(view, generator).cpu()


class _Meshes:
    """Surfaces of objects, found when they are first shown."""

    def __init__(self, objects: Objects, look: Look):
        self.objects, self.look = objects, look

    @cached_property
    def meshes(self) -> list[Mesh]:
        generator, found = self.objects.generator, []
        bar = tqdm(self.objects.split(), desc="meshes", leave=False, disable=None)
        for planes in (each.planes for each in bar):
            level = silhouette_level(generator, planes).level
            surface = find_surface(generator, planes, self.look.shape_res, level)
            found.append(largest_part(surface.mesh))
        return found

    def pictures(self, pose: Tensor, size: int) -> Tensor:
        """Shaded, from one pose [1, 2]: [B, 3, size, size]; white where there is no surface."""
        generator = self.objects.generator
        cam2world, lens = generator.cam2world(pose)[0], self.look.lens(generator)
        shown = torch.ones(len(self.meshes), 3, size, size)
        for picture, mesh in zip(shown, self.meshes, strict=True):
            if len(mesh.faces):
                rgb = render_mesh(mesh, cam2world, lens, size, shaded=True).rgb[0]
                picture.copy_(rgb * 2 - 1)
        return shown


def save_video(dest: Path, frames: Iterable[Image.Image], count: int, fps: int) -> None:
    """Write a .gif or .webp, which repeat for ever, or an .mp4.

    Raises:
        UserError: where it cannot be written.
    """
    bar = tqdm(frames, total=count, desc=dest.name, unit="frame", disable=None)
    pictures = [np.asarray(frame) for frame in bar]
    with write_destination(dest) as temporary:
        temporary.write_bytes(_encoded(pictures, dest.suffix.lower(), fps))


def _encoded(pictures: list[np.ndarray], extension: str, fps: int) -> bytes:
    options: dict[str, Any]
    if extension == ".mp4":
        options = {"fps": fps, "macro_block_size": 2}  # a larger one would change the size
    else:
        options = {"plugin": "pillow", "duration": 1000 / fps, "loop": 0}  # ms, for ever
    if extension == ".webp":
        options |= {"quality": 90, "duration": round(1000 / fps)}
    return imageio.imwrite("<bytes>", pictures, extension=extension, **options)
