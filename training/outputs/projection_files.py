"""Projected photographs as files.

For each photograph NAME.* OUTDIR receives

    NAME.npz          its latent and pose, which samples and videos take as --latent
    NAME.png          photograph, reconstruction, and the object from five sides
    NAME.mp4 .gif     the object before a moving camera
    NAME.glb .ply …   its mesh
    NAME.safetensors  the network that was tuned to it (--tune-steps); its latent is for that one

and for all of them together projections.json: PSNR, pose, time. Files are written whole or not at
all.
"""

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dnnlib import UserError, atomic_write
from torch_utils.images import to_float
from training.data.archive import DatasetArchive, UnreadableError, one_line, printable
from training.data.geometry import to_square
from training.data.photograph import decode
from training.files.network import Network
from training.files.network_file import save_network
from training.outputs.figures import enlarge, save_image_grid
from training.outputs.latent_files import save_latent
from training.outputs.levels import silhouette_level
from training.outputs.mesh_colors import colored
from training.outputs.mesh_files import save_mesh
from training.outputs.meshes import find_surface
from training.outputs.objects import Objects
from training.outputs.projection import Projection, ProjectionOptions, project
from training.outputs.videos import TRAJECTORIES, Look, orbit_frames, save_video

VIEW_YAWS = (-40.0, -20.0, 0.0, 20.0, 40.0)  # degrees, of the five sides
PICTURE_PIXELS = 128  # smaller images are enlarged by a whole factor
SWING_DEGREES = (35.0, 10.0)  # yaw and pitch, as videos turn their objects
FPS = 16
REPORT = "projections.json"


@dataclass(frozen=True)
class ProjectionFiles:
    """What to write, and where; the fields are options of `pof3d project`.

    video: '.mp4', '.gif' or None. shape_format: of a mesh, or None.
    """

    outdir: Path
    crop: str = "center"
    batch: int = 8
    video: str | None = ".mp4"
    trajectory: str = "turntable"
    frames: int = 48
    shape_format: str | None = ".glb"
    shape_res: int = 128


class NamedPhotograph(NamedTuple):
    """name: of the files made from it, without an extension. read: decodes it."""

    name: str
    read: Callable[[], Image.Image]


def find_photographs(paths: Sequence[Path]) -> list[NamedPhotograph]:
    """The photographs that files, folders and zips hold, each under a name of its own.

    Raises:
        UserError: for a path that does not exist, or a folder or zip without images.
    """
    found: dict[str, NamedPhotograph] = {}
    for path in paths:
        for photograph in _photographs_in(path):
            name, number = photograph.name, 1
            while name in found:
                number += 1
                name = f"{photograph.name}_{number}"
            found[name] = photograph._replace(name=name)
    return list(found.values())


def _photographs_in(path: Path) -> Iterator[NamedPhotograph]:
    if not path.exists():
        raise UserError(f"there is no {printable(path)}; give photographs, folders or zips of them")
    if not path.is_dir() and not zipfile.is_zipfile(path):
        yield NamedPhotograph(path.stem, lambda: _read_file(path))
        return
    archive = DatasetArchive(path)
    for name in archive.image_names():
        stem = "_".join(PurePosixPath(name).with_suffix("").parts)
        yield NamedPhotograph(stem, lambda name=name: archive.read_image(name))  # type: ignore[misc]


def _read_file(path: Path) -> Image.Image:
    try:
        return decode(path.read_bytes()).image
    except UserError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise UnreadableError(f"cannot read image {printable(path)} ({one_line(error)})") from error


def write_projections(
    network: Network,
    photographs: Sequence[NamedPhotograph],
    options: ProjectionOptions,
    files: ProjectionFiles,
) -> list[str]:
    """Project photographs, batch by batch, and write what `files` asks for.

    A network is tuned to one photograph at a time.

    Returns:
        What to tell the user about it, a line for each photograph.

    Raises:
        UserError: for a photograph that cannot be read, or where files cannot be written.
    """
    batch = 1 if options.tune_steps else files.batch
    report: dict[str, dict[str, float]] = {}
    with _writing_to(files.outdir):
        files.outdir.mkdir(parents=True, exist_ok=True)
        with tqdm(total=len(photographs), desc="photographs", unit="img", disable=None) as bar:
            for start in range(0, len(photographs), batch):
                some = photographs[start : start + batch]
                report |= _write_batch(network, some, options, files)
                with atomic_write(files.outdir / REPORT) as temporary:
                    temporary.write_text(json.dumps(report, indent=1) + "\n")
                bar.update(len(some))
    return [_line(name, entry) for name, entry in report.items()]


def _write_batch(
    network: Network,
    photographs: Sequence[NamedPhotograph],
    options: ProjectionOptions,
    files: ProjectionFiles,
) -> dict[str, dict[str, float]]:
    """Entries of the report, by name."""
    size = network.config.data.resolution
    images = torch.stack([_pixels(photograph, size, files.crop) for photograph in photographs])
    found = project(network.generator, network.discriminator, images, options, progress=True)
    entries = _entries(found)
    for i, (photograph, objects) in enumerate(zip(photographs, found.objects.split(), strict=True)):
        stem = files.outdir / photograph.name
        save_latent(_with(stem, ".npz"), objects.ws[0], objects.pose[0])
        _write_picture(_with(stem, ".png"), to_float(images[i]), found.images[i].cpu(), objects)
        if options.tune_steps:
            _write_network(_with(stem, ".safetensors"), network, objects)
        if files.video:
            _write_video(_with(stem, files.video), objects, files)
        if files.shape_format:
            _write_mesh(_with(stem, files.shape_format), objects, files.shape_res)
    return {photograph.name: e for photograph, e in zip(photographs, entries, strict=True)}


def _with(stem: Path, extension: str) -> Path:
    """Names may hold dots, so that `Path.with_suffix` would cut them."""
    return stem.with_name(stem.name + extension)


def _pixels(photograph: NamedPhotograph, size: int, crop: str) -> Tensor:
    """uint8 [3, R, R]."""
    pixels = np.array(to_square(photograph.read(), size, crop))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _entries(found: Projection) -> list[dict[str, float]]:
    pose = found.objects.pose
    degrees = found.objects.generator.degrees_from_pose(pose)
    names = ("psnr", "h", "v", "yaw_degrees", "pitch_degrees")
    rows = torch.cat([found.psnr[:, None], pose, degrees], dim=1).tolist()
    shared = {"steps": found.steps, "seconds": found.seconds}
    return [dict(zip(names, row, strict=True)) | shared for row in rows]


def _line(name: str, entry: dict[str, float]) -> str:
    return (
        f"{printable(name)}: PSNR {entry['psnr']:.1f} dB, yaw {entry['yaw_degrees']:+.1f}, "
        f"pitch {entry['pitch_degrees']:+.1f} degrees, {entry['seconds']:.1f} s"
    )


@torch.no_grad()
def _write_picture(path: Path, photograph: Tensor, seen: Tensor, objects: Objects) -> None:
    directions = torch.tensor([[yaw, 0.0] for yaw in VIEW_YAWS])
    sides = objects.render(objects.generator.pose_from_degrees(directions)).image[0].cpu()
    row = torch.cat([photograph[None], seen[None], sides])
    save_image_grid(path, enlarge(row, max(PICTURE_PIXELS // row.shape[-1], 1)), columns=len(row))


def _write_network(path: Path, network: Network, objects: Objects) -> None:
    save_network(path, objects.generator, network.discriminator, network.provenance)


def _write_video(path: Path, objects: Objects, files: ProjectionFiles) -> None:
    directions = TRAJECTORIES[files.trajectory](files.frames, *SWING_DEGREES)
    factor = max(PICTURE_PIXELS // objects.generator.config.data.resolution, 1)
    frames = orbit_frames(objects, directions, Look(enlarge=factor))
    save_video(path, frames, files.frames, FPS)


def _write_mesh(path: Path, objects: Objects, resolution: int) -> None:
    generator, planes = objects.generator, objects.planes
    level = silhouette_level(generator, planes).level
    mesh = find_surface(generator, planes, resolution, level).mesh
    if len(mesh.faces):
        save_mesh(path, colored(generator, planes, mesh))
    else:
        tqdm.write(f"{printable(path.stem)}: no surface, no mesh written")


@contextlib.contextmanager
def _writing_to(outdir: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever read the messages has gone; the files are fine
        raise
    except OSError as error:
        raise UserError(
            f"cannot write to {outdir}: {error.strerror or error}; choose another --outdir"
        ) from error
