"""Samples of a trained network as files: images, the poses they are seen from, shapes.

For each seed OUTDIR receives

    seed0000.png                    the image from the object's own pose
    seed00000_pose.npy              that camera: cam2world, float32 [4, 4]
    seed0000.mrc .ply .glb …        its densities or their surface (--shapes true)
    seed0000.mtl, seed0000_texture.png      what belongs to seed0000.obj (--texture)
    seed0000_shape.png              a shaded picture of the surface (--shape-preview)
    seed0000_yaw+20_pitch+00.png    further views (--yaw, --pitch)
    …_raw.png, …_depth.png          beside every image (--raw, --depth)

and for all of them together contact_sheet.png, poses.json and style_mixing.png (--mix-with). With
--latent, photo.npz in place of a seed makes photo.png and so on. A generator that is given its
poses (an EG3D network) is conditioned on the frontal camera, from which its objects are seen as
well. Files are written whole or not at all.
"""

import contextlib
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib import UserError, atomic_write
from training.cameras import intrinsics_from_fov
from training.networks.generator import Generator, View
from training.outputs.figures import depth_colors, enlarge, save_image, save_image_grid
from training.outputs.levels import silhouette_level
from training.outputs.mesh_colors import colored
from training.outputs.mesh_files import TEXTURE_FORMATS, VOLUME_FORMAT, save_mesh, save_mrc
from training.outputs.meshes import (
    Mesh,
    density_grid,
    extract_mesh,
    find_surface,
    largest_part,
    surface_level,
)
from training.outputs.mixing import check_mixing, mixing_table
from training.outputs.objects import Objects, Selection
from training.outputs.shading import shade
from training.outputs.textures import check_packages, textured

SHEET_PICTURES = 400  # at most: the contact sheet must fit in memory
SHEET_PIXELS = 128  # side of each; smaller images are enlarged by a whole factor
PUBLISHED_FORMATS = (VOLUME_FORMAT, ".ply")  # which the published command writes
PREVIEW_DIRECTION = (30.0, 15.0)  # yaw and pitch in degrees, from which shapes are shown


@dataclass(frozen=True)
class SampleOptions:
    """What to draw and to write; the fields are the options of `pof3d samples`."""

    outdir: Path
    seeds: Sequence[int] = ()
    latent: Sequence[Path] = ()
    trunc: float = 1.0
    trunc_cutoff: int | None = None
    fov_deg: float | None = None
    yaw: Sequence[float] | None = None
    pitch: Sequence[float] | None = None
    render_size: int | None = None
    raw: bool = False
    depth: bool = False
    shapes: bool = False
    shape_res: int = 128
    shape_format: str = VOLUME_FORMAT
    shape_preview: bool = False
    level: float | Literal["auto"] | None = None
    keep_largest: bool = False
    texture: int | None = None
    faces: int = 10_000
    mix_with: Sequence[int] | None = None
    mix_layers: Sequence[int] | None = None
    batch: int = 4

    @property
    def selection(self) -> Selection:
        """The objects that are drawn."""
        return Selection(self.seeds, self.trunc, self.trunc_cutoff, self.latent)

    @property
    def lens(self) -> Tensor | None:
        """Intrinsics [3, 3]; None: the network's."""
        return None if self.fov_deg is None else intrinsics_from_fov(self.fov_deg)

    @property
    def finds_level(self) -> bool:
        """Whether each object has a level of its own; published formats have the published one."""
        published = self.shape_format in PUBLISHED_FORMATS
        return self.level == "auto" or (self.level is None and not published)

    @property
    def directions(self) -> list[tuple[float, float]]:
        """(yaw, pitch) in degrees of the further views."""
        if self.yaw is None and self.pitch is None:
            return []
        return list(itertools.product(self.yaw or [0.0], self.pitch or [0.0]))


@torch.no_grad()
def write_samples(generator: Generator, options: SampleOptions) -> list[str]:
    """Write everything that `options` ask for, batch by batch.

    Returns:
        What to tell the user about it, in lines.

    Raises:
        UserError: where files cannot be written, or options contradict each other.
    """
    _check(generator, options)
    selection = options.selection
    columns = 1 + len(options.directions)
    sheet = _ContactSheet(columns, max(SHEET_PICTURES // columns, 1))
    poses: list[Tensor] = []
    with _writing_to(options.outdir):
        options.outdir.mkdir(parents=True, exist_ok=True)
        with tqdm(total=len(selection), desc="samples", unit="object", disable=None) as bar:
            for some in selection.batches(options.batch):
                objects = some.objects(generator)
                poses.append(objects.pose.cpu())
                _write_poses(options.outdir, some.names(digits=5), objects)
                sheet.add(_write_views(options, some.names(), objects))
                for name, each in zip(some.names(), objects.split(), strict=True):
                    if options.shapes:
                        _write_shape(options, name, each)
                    bar.update()
        sheet.save(options.outdir / "contact_sheet.png")
        if options.mix_with is not None:
            _write_mixing(generator, options, options.mix_with)
        line = _write_statistics(options.outdir, selection, generator, torch.cat(poses))
    shown = "them" if len(selection) <= sheet.rows else f"the first {sheet.rows}"
    return [
        line,
        f"{len(selection)} samples in {options.outdir}; contact_sheet.png shows {shown}",
    ]


def _check(generator: Generator, options: SampleOptions) -> None:
    if options.mix_with is not None:
        check_mixing(generator, len(options.selection), len(options.mix_with), options.mix_layers)
    elif options.mix_layers is not None:
        raise UserError("--mix-layers is of --mix-with SEEDS; add it")
    if options.shape_preview and not options.shapes:
        raise UserError("--shape-preview is of shapes; add --shapes true")
    if options.texture is not None:
        if not options.shapes or options.shape_format not in TEXTURE_FORMATS:
            formats = " or ".join(TEXTURE_FORMATS)
            raise UserError(f"--texture needs --shapes true and --shape-format {formats}")
        check_packages()
    if options.keep_largest and (not options.shapes or options.shape_format == VOLUME_FORMAT):
        raise UserError("--keep-largest is of meshes; add --shapes true --shape-format .glb")


@contextlib.contextmanager
def _writing_to(outdir: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever read the messages has gone; the files are fine
        raise
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write samples to {outdir}: {reason}; choose another --outdir"
        ) from error


def _write_poses(outdir: Path, names: Sequence[str], objects: Objects) -> None:
    for name, cam2world in zip(names, objects.generator.cam2world(objects.pose), strict=True):
        encoded = io.BytesIO()
        np.save(encoded, cam2world.cpu().numpy())
        with atomic_write(outdir / f"{name}_pose.npy") as temporary:
            temporary.write_bytes(encoded.getbuffer())


def _write_views(options: SampleOptions, names: Sequence[str], objects: Objects) -> Tensor:
    """Write all views of each object; returns thumbnails [B, V, 3, r, r]."""
    size, lens = options.render_size, options.lens
    views = [_write_view(options, names, objects.own_view(lens, size), objects.generator, "")]
    for yaw, pitch in options.directions:
        pose = objects.generator.pose_from_degrees(torch.tensor([[yaw, pitch]]))
        view = objects.render(pose, lens, size).select(0)
        suffix = f"_yaw{yaw:+03g}_pitch{pitch:+03g}"
        views.append(_write_view(options, names, view, objects.generator, suffix))
    return torch.stack(views, dim=1)


def _write_view(
    options: SampleOptions, names: Sequence[str], view: View, generator: Generator, suffix: str
) -> Tensor:
    """Write one view of each object; returns its thumbnails [B, 3, r, r]."""
    view = View(*(part.cpu() for part in view))
    pictures = {"": view.image}
    if options.raw:
        pictures["_raw"] = view.raw
    if options.depth:
        pictures["_depth"] = depth_colors(view.depth, view.opacity, generator.config)
    for kind, images in pictures.items():
        for name, image in zip(names, images.split(1), strict=True):
            save_image_grid(options.outdir / f"{name}{suffix}{kind}.png", image)
    return _thumbnail(view.image)


def _thumbnail(image: Tensor) -> Tensor:
    size = image.shape[-1]
    if size >= SHEET_PIXELS:
        return torch.nn.functional.adaptive_avg_pool2d(image, SHEET_PIXELS)
    return enlarge(image, SHEET_PIXELS // size)


class _ContactSheet:
    """Keeps thumbnails of the first seeds, whatever number follows."""

    def __init__(self, columns: int, rows: int):
        self.columns, self.rows = columns, rows
        self._thumbnails: list[Tensor] = []

    def add(self, views: Tensor) -> None:
        """views: [B, V, 3, r, r]."""
        if sum(map(len, self._thumbnails)) < self.rows:
            self._thumbnails.append(views)

    def save(self, path: Path) -> None:
        """With further views, a row for each seed."""
        shown = torch.cat(self._thumbnails)[: self.rows]
        save_image_grid(path, shown.flatten(0, 1), self.columns if self.columns > 1 else None)


def _write_shape(options: SampleOptions, name: str, objects: Objects) -> None:
    """Write the shape of one object; where there is none, say so."""
    level = _level(options, name, objects)
    write = _write_volume if options.shape_format == VOLUME_FORMAT else _write_mesh
    write(options, name, objects, level)


def _level(options: SampleOptions, name: str, objects: Objects) -> float:
    """The level of one object's surface; said where it was found for this object."""
    if options.finds_level:
        level, agreement = silhouette_level(objects.generator, objects.planes)
        tqdm.write(f"{name}: level {level:.4g}, silhouettes agree by {agreement:.1%}")
        return level
    if isinstance(options.level, float):
        return options.level
    return surface_level(objects.generator.config.rendering.density_scale)


def _write_volume(options: SampleOptions, name: str, objects: Objects, level: float) -> None:
    box_warp = objects.generator.config.rendering.box_warp
    density = density_grid(objects.generator, objects.planes, options.shape_res, progress=True)
    path = options.outdir / f"{name}{VOLUME_FORMAT}"
    if _has_surface(path, name, level, density.min().item(), density.max().item()):
        save_mrc(path, density, box_warp)
        if options.shape_preview:
            _write_preview(options, name, objects, extract_mesh(density, level, box_warp))


def _write_mesh(options: SampleOptions, name: str, objects: Objects, level: float) -> None:
    generator, planes = objects.generator, objects.planes
    surface = find_surface(generator, planes, options.shape_res, level, progress=True)
    if surface.is_dense:
        tqdm.write(f"{name}: took the dense grid, for the coarse one misses surface")
    path = options.outdir / f"{name}{options.shape_format}"
    if not _has_surface(path, name, level, surface.search.lowest, surface.search.highest):
        return
    mesh = largest_part(surface.mesh) if options.keep_largest else surface.mesh
    if options.texture is None:
        save_mesh(path, colored(generator, planes, mesh))
    else:
        save_mesh(path, textured(generator, planes, mesh, options.texture, options.faces))
    if options.shape_preview:
        _write_preview(options, name, objects, mesh)


def _has_surface(path: Path, name: str, level: float, lowest: float, highest: float) -> bool:
    """Whether densities lie on both sides of the level; said where they do not."""
    if lowest < level < highest:
        return True
    tqdm.write(
        f"{name}: no surface at level {level:g}, no {path.name} written "
        f"(densities go from {lowest:.4g} to {highest:.4g})"
    )
    return False


def _write_preview(options: SampleOptions, name: str, objects: Objects, mesh: Mesh) -> None:
    generator = objects.generator
    pose = generator.pose_from_degrees(torch.tensor([PREVIEW_DIRECTION]))
    picture = shade(mesh, generator.cam2world(pose)[0, :3, 3])
    save_image_grid(options.outdir / f"{name}_shape.png", picture)


def _write_mixing(generator: Generator, options: SampleOptions, seeds: Sequence[int]) -> None:
    layers = check_mixing(generator, len(options.selection), len(seeds), options.mix_layers)
    rows = options.selection.objects(generator)
    columns = replace(options.selection, seeds=seeds, latents=()).objects(generator)
    table = mixing_table(rows, columns, layers, options.lens, options.render_size)
    save_image(options.outdir / "style_mixing.png", table)


def _write_statistics(
    outdir: Path, selection: Selection, generator: Generator, poses: Tensor
) -> str:
    """Write each object's pose, in radians and in degrees around the canonical view.

    Returns a line with mean and standard deviation of the latter, which are written too.
    """
    degrees = generator.degrees_from_pose(poses)
    mean, std = degrees.mean(dim=0), degrees.std(dim=0, correction=0)
    names = ("yaw_degrees", "pitch_degrees")
    statistics: dict[str, object] = {
        name: {"mean": m, "std": s}
        for name, m, s in zip(names, mean.tolist(), std.tolist(), strict=True)
    }
    rows = torch.cat([poses, degrees], dim=1).tolist()
    keys = selection.names() if selection.latents else list(selection.seeds)
    statistics["latents" if selection.latents else "seeds"] = {
        key: dict(zip(("h", "v", *names), row, strict=True))
        for key, row in zip(keys, rows, strict=True)
    }
    with atomic_write(outdir / "poses.json") as temporary:
        temporary.write_text(json.dumps(statistics, indent=1) + "\n")
    return (
        f"poses (mean ± spread): yaw {mean[0]:+.1f} ± {std[0]:.1f}, "
        f"pitch {mean[1]:+.1f} ± {std[1]:.1f} degrees around the canonical view"
    )
