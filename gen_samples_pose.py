"""Draw samples from a trained network: images, the poses they are seen from, shapes.

For each seed OUTDIR receives

    seed0000.png                    the image from the pose that the generator chose
    seed00000_pose.npy              that camera: cam2world, float32 [4, 4]
    seed0000.mrc or .ply            its densities or their surface (--shapes true)
    seed0000_shape.png              a shaded picture of the surface (--shape-preview)
    seed0000_yaw+20_pitch+00.png    further views (--yaw, --pitch)
    …_raw.png, …_depth.png          beside every image (--raw, --depth)

and for all of them together contact_sheet.png and poses.json. A generator whose pose is given (an
EG3D network) is conditioned on the frontal camera, which also takes the place of a chosen pose.
"""

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dnnlib import Command, SeedList, UserError, finite
from training.cameras import (
    degrees_from_pose,
    focal_from_fov,
    intrinsics_from_focal,
    pose_from_degrees,
)
from training.files.network_file import load_network
from training.networks.generator import Generator, View
from training.outputs.figures import depth_colors, save_image_grid
from training.outputs.meshes import (
    Mesh,
    can_shade,
    density_grid,
    extract_mesh,
    find_surface,
    save_mrc,
    save_ply,
    shade,
    surface_level,
)
from training.outputs.objects import Objects, objects_of_seeds
from training.presets import PRESET_ALIASES, PRESETS

SHEET_PICTURES = 400  # at most: the contact sheet must fit in memory
PREVIEW_DIRECTION = (30.0, 15.0)  # yaw and pitch in degrees, from which shapes are shown
SHEET_PIXELS = 128  # side of each; smaller images are enlarged by a whole factor


class DegreeList(click.ParamType):
    """'-20,0,20' -> [-20.0, 0.0, 20.0], none of them beyond the limit."""

    name = "degrees"

    def __init__(self, limit: float):
        self.limit = limit

    def convert(self, value: str, param: Any, ctx: Any) -> list[float]:
        try:
            degrees = [float(part) + 0.0 for part in value.split(",")]  # + 0.0: no negative zero
        except ValueError:
            self.fail(f"'{value}' is not a list of degrees; write -20,0,20", param, ctx)
        if not all(abs(angle) <= self.limit for angle in degrees):
            self.fail(f"{value}: angles go from -{self.limit:g} to {self.limit:g}", param, ctx)
        return degrees


class Options(NamedTuple):
    """The command line; see the help of `main`."""

    network: str
    outdir: Path
    seeds: list[int]
    dataset: str | None
    trunc: float
    trunc_cutoff: int
    fov_deg: float | None
    yaw: list[float] | None
    pitch: list[float] | None
    raw: bool
    depth: bool
    shapes: bool
    shape_res: int
    shape_format: str
    shape_preview: bool
    level: float | None
    batch: int
    device: str


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--network", metavar="FILE", required=True, help="Network file.")
@click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Made when missing.")
@click.option("--seeds", type=SeedList(), required=True, help="List and ranges, as 0-3,7.")
@click.option(
    "--dataset",
    type=click.Choice([*PRESETS, *PRESET_ALIASES]),
    help="What the network was trained on. The file knows; a contradiction gets a warning.",
)
@click.option(
    "--trunc",
    type=float,
    default=1.0,
    callback=finite,
    help="Truncation; below 1 it trades variety for quality.",
)
@click.option(
    "--trunc-cutoff", type=click.IntRange(min=0), default=14, help="Layers that are truncated."
)
@click.option(
    "--fov-deg",
    type=click.FloatRange(0, 180, min_open=True, max_open=True),
    callback=finite,
    show_default="the network's",
    help="Field of view in degrees.",
)
@click.option(
    "--yaw",
    type=DegreeList(360),
    help="Further views of each seed: degrees round the canonical one, as -20,0,20.",
)
@click.option(
    "--pitch", type=DegreeList(90), help="Likewise, upward; every yaw is joined with every pitch."
)
@click.option("--raw", is_flag=True, help="Also write the rendering before super-resolution.")
@click.option("--depth", is_flag=True, help="Also write depth: near is yellow, far is violet.")
@click.option("--shapes", type=bool, default=False, help="Also write the shape of each seed.")
@click.option("--shape-res", type=click.IntRange(2, 1024), default=128, help="Grid points a side.")
@click.option(
    "--shape-format",
    type=click.Choice([".mrc", ".ply"]),
    default=".mrc",
    help="A volume of densities, or the mesh of their surface.",
)
@click.option(
    "--shape-preview",
    is_flag=True,
    help="Also write a shaded picture of each shape; needs neural_renderer.",
)
@click.option(
    "--level",
    type=float,
    callback=finite,
    show_default="10, or what is as opaque at the network's density scale",
    help="Density at the surface, as it is before the renderer's softplus.",
)
@click.option("--batch", type=click.IntRange(min=1), default=4, help="Seeds at a time.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
def main(**options: Any) -> None:
    """Draw samples from a trained network: images, the poses they are seen from, shapes."""
    options = _checked(Options(**options))
    generator = load_network(options.network, _device(options.device)).generator
    _warn_of_other_preset(generator, options)
    try:
        options.outdir.mkdir(parents=True, exist_ok=True)
        Sampler(generator, options).run()
    except OSError as error:
        raise UserError(f"cannot write samples: {error}; choose another --outdir") from error


def _checked(options: Options) -> Options:
    """The options that hold here: pictures of shapes need shapes, and an optional package."""
    if options.shape_preview and not options.shapes:
        raise click.UsageError("--shape-preview is of shapes; add --shapes true")
    if options.shape_preview and not can_shade():
        click.echo(
            "warning: --shape-preview is off, for neural_renderer is not installed; "
            "try: pip install ./neural_renderer",
            err=True,
        )
        return options._replace(shape_preview=False)
    return options


def _device(choice: str) -> torch.device:
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise UserError("--device cuda: there is no CUDA device; use --device cpu")
    return torch.device("cuda" if choice != "cpu" and available else "cpu")


def _warn_of_other_preset(generator: Generator, options: Options) -> None:
    trained, claimed = generator.config.preset, options.dataset
    if claimed is not None and PRESET_ALIASES.get(claimed, claimed) != trained:
        click.echo(
            f"warning: --dataset {claimed}, but {options.network} was trained as {trained}; "
            "the file's settings are used",
            err=True,
        )


class Sampler:
    """Works through the seeds; of those behind it, it keeps only poses and thumbnails."""

    def __init__(self, generator: Generator, options: Options):
        self.generator, self.options = generator, options
        fov, level = options.fov_deg, options.level
        scale = generator.config.rendering.density_scale
        self.level = surface_level(scale) if level is None else level
        self.intrinsics = None if fov is None else intrinsics_from_focal(focal_from_fov(fov))
        turned = options.yaw is not None or options.pitch is not None
        angles = itertools.product(options.yaw or [0.0], options.pitch or [0.0])
        self.directions = list(angles) if turned else []
        self.rows_shown = max(SHEET_PICTURES // (1 + len(self.directions)), 1)
        self.poses: list[Tensor] = []
        self.thumbnails: list[Tensor] = []

    @torch.no_grad()
    def run(self) -> None:
        seeds, batch = self.options.seeds, self.options.batch
        with tqdm(total=len(seeds), desc="samples", unit="seed", disable=None) as bar:
            for start in range(0, len(seeds), batch):
                self._sample(seeds[start : start + batch], bar)
        self._save_contact_sheet()
        self._save_statistics()
        shown = "them" if len(seeds) <= self.rows_shown else f"the first {self.rows_shown}"
        click.echo(
            f"{len(seeds)} samples in {self.options.outdir}; contact_sheet.png shows {shown}"
        )

    def _sample(self, seeds: list[int], bar: tqdm) -> None:
        options = self.options
        objects = objects_of_seeds(self.generator, seeds, options.trunc, options.trunc_cutoff)
        self.poses.append(objects.pose.cpu())
        for seed, cam2world in zip(seeds, self.generator.cam2world(objects.pose), strict=True):
            np.save(options.outdir / f"seed{seed:05d}_pose.npy", cam2world.cpu().numpy())
        views = [self._save_view(seeds, objects, objects.pose, "")]
        for yaw, pitch in self.directions:
            direction = torch.tensor([yaw, pitch]).to(objects.pose)
            pose = pose_from_degrees(direction, self.generator.config.camera.mean_h)
            suffix = f"_yaw{yaw:+03g}_pitch{pitch:+03g}"
            views.append(self._save_view(seeds, objects, pose.expand_as(objects.pose), suffix))
        if sum(map(len, self.thumbnails)) < self.rows_shown:
            self.thumbnails.append(torch.stack(views, dim=1))
        for seed, planes in zip(seeds, objects.planes.split(1), strict=True):
            if options.shapes:
                self._save_shape(seed, planes)
            bar.update()

    def _save_view(self, seeds: list[int], objects: Objects, pose: Tensor, suffix: str) -> Tensor:
        """Write one view of each object; return its thumbnails [B, 3, r, r]."""
        cam2world = self.generator.cam2world(pose)[:, None]
        view = self.generator.render(objects.planes, objects.w, cam2world, self.intrinsics)
        view = View(*(part.cpu() for part in view.select(0)))
        pictures = {"": view.image}
        if self.options.raw:
            pictures["_raw"] = view.raw
        if self.options.depth:
            pictures["_depth"] = depth_colors(view.depth, view.opacity, self.generator.config)
        for kind, images in pictures.items():
            for seed, image in zip(seeds, images.split(1), strict=True):
                name = f"seed{seed:04d}{suffix}{kind}.png"
                save_image_grid(self.options.outdir / name, image)
        size = view.image.shape[-1]
        if size >= SHEET_PIXELS:
            return torch.nn.functional.adaptive_avg_pool2d(view.image, SHEET_PIXELS)
        return view.image.repeat_interleave(SHEET_PIXELS // size, 2).repeat_interleave(
            SHEET_PIXELS // size, 3
        )

    def _save_shape(self, seed: int, planes: Tensor) -> None:
        options, box_warp = self.options, self.generator.config.rendering.box_warp
        path = options.outdir / f"seed{seed:04d}{options.shape_format}"
        if options.shape_format == ".mrc":
            density = density_grid(self.generator, planes, options.shape_res, progress=True)
            if self._has_surface(path, seed, density.min().item(), density.max().item()):
                save_mrc(path, density, box_warp)
                if options.shape_preview:
                    self._save_preview(seed, extract_mesh(density, self.level, box_warp))
        else:
            surface = find_surface(
                self.generator, planes, options.shape_res, self.level, progress=True
            )
            if surface.is_dense:
                tqdm.write(f"seed {seed}: took the dense grid, for the coarse one misses surface")
            if self._has_surface(path, seed, surface.search.lowest, surface.search.highest):
                save_ply(path, surface.mesh)
                if options.shape_preview:
                    self._save_preview(seed, surface.mesh)

    def _has_surface(self, path: Path, seed: int, lowest: float, highest: float) -> bool:
        """Whether densities lie on both sides of the level; said where they do not."""
        if lowest < self.level < highest:
            return True
        tqdm.write(
            f"seed {seed}: no surface at level {self.level:g}, no {path.name} written "
            f"(densities go from {lowest:.4g} to {highest:.4g})"
        )
        return False

    def _save_preview(self, seed: int, mesh: Mesh) -> None:
        direction = torch.tensor([PREVIEW_DIRECTION]).to(self.generator.intrinsics)
        pose = pose_from_degrees(direction, self.generator.config.camera.mean_h)
        picture = shade(mesh, self.generator.cam2world(pose)[0, :3, 3])
        save_image_grid(self.options.outdir / f"seed{seed:04d}_shape.png", picture)

    def _save_contact_sheet(self) -> None:
        """With further views, a row for each seed."""
        shown = torch.cat(self.thumbnails)[: self.rows_shown]
        columns = shown.shape[1] if self.directions else None
        save_image_grid(self.options.outdir / "contact_sheet.png", shown.flatten(0, 1), columns)

    def _save_statistics(self) -> None:
        """poses.json: each seed's pose in radians and in degrees round the canonical view, and the
        mean and standard deviation of the latter."""
        poses = torch.cat(self.poses)
        degrees = degrees_from_pose(poses, self.generator.config.camera.mean_h)
        mean, std = degrees.mean(dim=0), degrees.std(dim=0, correction=0)
        names = ("yaw_degrees", "pitch_degrees")
        statistics = {
            name: {"mean": m, "std": s}
            for name, m, s in zip(names, mean.tolist(), std.tolist(), strict=True)
        }
        rows = torch.cat([poses, degrees], dim=1).tolist()
        statistics["seeds"] = {
            seed: dict(zip(("h", "v", *names), row, strict=True))
            for seed, row in zip(self.options.seeds, rows, strict=True)
        }
        (self.options.outdir / "poses.json").write_text(json.dumps(statistics, indent=1) + "\n")
        click.echo(
            f"poses (mean ± spread): yaw {mean[0]:+.1f} ± {std[0]:.1f}, "
            f"pitch {mean[1]:+.1f} ± {std[1]:.1f} degrees round the canonical view"
        )


if __name__ == "__main__":
    main()
