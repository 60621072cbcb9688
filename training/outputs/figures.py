"""Pictures for people: grids of images, depth, normals, turned faces, poses.

Images are float [N, 3, H, W] in [-1, 1]. Directions of view are (yaw, pitch) in degrees round the
canonical one, h = h_mean and v = pi/2: positive yaw moves the camera to the side where h grows,
positive pitch raises it.
"""

import math
import os
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from torch_utils.images import resize, to_uint8
from training.cameras import degrees_from_pose, pose_from_degrees, rays_from_cameras
from training.config import Config
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator, View

TURNS = (-40, -20, 0, 20, 40)  # yaws of the faces that a snapshot turns, degrees
TURNED_FACES = 8
AT_ONCE = 4  # objects rendered or judged together; bounds memory
POSES_DRAWN = 1000  # of the generator's distribution, for the plot


def tile(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images side by side, row by row, without borders; empty cells are white.

    columns: None picks a layout close to a square, without empty cells where there is one.
    """
    count, _, height, width = images.shape
    columns = columns or _balanced_columns(count)
    rows = math.ceil(count / columns)
    cells = torch.full((rows * columns, 3, height, width), 255, dtype=torch.uint8)
    cells[:count] = to_uint8(images)
    grid = cells.reshape(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    return Image.fromarray(grid.reshape(rows * height, columns * width, 3).numpy())


def _balanced_columns(count: int) -> int:
    root = math.ceil(math.sqrt(count))
    return next((n for n in range(root, 2 * root - 1) if count % n == 0), root)


def save_image_grid(path: str | os.PathLike, images: Tensor, columns: int | None = None) -> None:
    """Write a PNG; see `tile`."""
    tile(images, columns).save(path)


def depth_colors(depth: Tensor, opacity: Tensor, config: Config) -> Tensor:
    """Depth and opacity [N, 1, H, W] -> images: near is yellow, far is violet, empty is white.

    The scale is that of the cube which the field fills, the same for all pictures of a network: a
    flat object looks flat.
    """
    radius, half = config.camera.radius, config.rendering.box_warp / 2
    near = max(radius - half, config.rendering.near)
    far = min(radius + half, config.rendering.far)
    nearness = ((far - depth[:, 0]) / (far - near)).clamp(0, 1)
    colors = matplotlib.colormaps["viridis"](nearness.cpu().numpy())[..., :3]
    colors = torch.from_numpy(colors.astype(np.float32)).permute(0, 3, 1, 2).to(depth.device)
    return _on_white(colors * 2 - 1, opacity)


def normals_from_depth(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Unit normals [N, 3, H, W] of the surfaces that depth images show, in the camera's space.

    depth: [N, 1, H, W], distance from the camera. intrinsics: [N, 3, 3] or [3, 3]. The axes are
    those of normal maps: x to the right, y up, z toward the viewer.
    """
    size = depth.shape[-1]
    at_origin = torch.eye(4, dtype=depth.dtype, device=depth.device).expand(len(depth), 4, 4)
    directions = rays_from_cameras(at_origin, intrinsics, size).directions
    points = depth[:, 0, ..., None] * directions.unflatten(1, (size, size))
    down, right = torch.gradient(points, dim=(1, 2))
    normals = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
    return (normals * normals.new_tensor([1.0, -1.0, -1.0])).permute(0, 3, 1, 2)


def normal_colors(depth: Tensor, opacity: Tensor, intrinsics: Tensor) -> Tensor:
    """`normals_from_depth` as images: x is red, y green, z blue; empty is white."""
    return _on_white(normals_from_depth(depth, intrinsics), opacity)


def _on_white(images: Tensor, opacity: Tensor) -> Tensor:
    return 1 + (images - 1) * opacity


def save_pose_plot(path: str | os.PathLike, generated: Tensor, seen: Tensor) -> None:
    """Write a scatter plot of directions [N, 2], (yaw, pitch) in degrees, with its marginals.

    generated: where the generator puts its cameras. seen: from where the discriminator believes
    that photographs were taken.
    """
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplot_mosaic(
        [["yaw", "."], ["both", "pitch"]], width_ratios=(4, 1), height_ratios=(1, 4)
    )
    generated, seen = generated.cpu().numpy(), seen.cpu().numpy()
    yaw_bins, pitch_bins = (
        np.histogram_bin_edges(angles, bins=40) for angles in np.concatenate([generated, seen]).T
    )
    for label, directions, color in (
        ("generator", generated, "tab:blue"),
        ("photographs, as D sees them", seen, "tab:red"),
    ):
        yaw, pitch = directions.T
        size = np.clip(3000 / len(yaw), 4, 40)  # the fewer the points, the larger
        axes["both"].scatter(yaw, pitch, size, color, alpha=0.5, linewidths=0, label=label)
        shares = {"weights": np.full(len(yaw), 1 / len(yaw)), "color": color, "alpha": 0.5}
        axes["yaw"].hist(yaw, yaw_bins, **shares)
        axes["pitch"].hist(pitch, pitch_bins, orientation="horizontal", **shares)
    axes["both"].set(xlabel="yaw (degrees)", ylabel="pitch (degrees)")
    for marker in axes["both"].legend(loc="best").legend_handles:
        marker.set_sizes([30])
    axes["both"].grid(alpha=0.3)
    axes["yaw"].sharex(axes["both"])
    axes["yaw"].set(ylabel="share")
    axes["yaw"].tick_params(labelbottom=False)
    axes["pitch"].sharey(axes["both"])
    axes["pitch"].set(xlabel="share")
    axes["pitch"].tick_params(labelleft=False)
    figure.savefig(path, dpi=100)


@torch.no_grad()
def save_snapshot_pictures(
    folder: Path,
    tag: str,
    generator: Generator,
    discriminator: Discriminator,
    z: Tensor,
    intrinsics: Tensor | None,
    real_images: Tensor,
) -> None:
    """Write fakes-, depth-, normals-, yaws- and poses-TAG.png; raw-TAG.png with super-resolution.

    z: [N, z_dim], one per face. intrinsics: [N, 3, 3], None: the preset's. real_images:
    [M, 3, R, R]. Neither the networks nor any global random state is changed.
    """
    if intrinsics is None:
        intrinsics = generator.intrinsics.expand(len(z), 3, 3)
    own, turned = _faces(generator, z, intrinsics)
    pictures = {
        "fakes": own.image,
        "depth": depth_colors(own.depth, own.opacity, generator.config),
        "normals": normal_colors(own.depth, own.opacity, intrinsics),
    }
    if generator.superresolution is not None:
        pictures["raw"] = own.raw
    for name, images in pictures.items():
        save_image_grid(folder / f"{name}-{tag}.png", images)
    save_image_grid(folder / f"yaws-{tag}.png", turned, columns=len(TURNS))

    mean_h = generator.config.camera.mean_h
    poses = _drawn_poses(generator), _seen_poses(discriminator, real_images, generator)
    save_pose_plot(
        folder / f"poses-{tag}.png", *(degrees_from_pose(pose, mean_h) for pose in poses)
    )


def _faces(generator: Generator, z: Tensor, intrinsics: Tensor) -> tuple[View, Tensor]:
    """All faces from their own poses; images of the first few from TURNS, a row for each face."""
    own, turned = [], []
    directions = torch.tensor([[turn, 0.0] for turn in TURNS], device=z.device)
    turns = pose_from_degrees(directions, generator.config.camera.mean_h)
    for some_z, lens in zip(z.split(AT_ONCE), intrinsics.split(AT_ONCE), strict=True):
        latent = generator.latent(some_z)
        w, planes = latent.ws[:, -1], generator.planes(latent.ws)
        cam2world = generator.cam2world(latent.pose)[:, None]
        own.append(generator.render(planes, w, cam2world, lens).select(0))
        if len(turned) * AT_ONCE < TURNED_FACES:
            cameras = generator.cam2world(turns).expand(len(w), -1, 4, 4).split(1, dim=1)
            images = [generator.render(planes, w, c, lens).image for c in cameras]
            turned.append(torch.cat(images, dim=1))
    faces = View(*(torch.cat(parts).cpu() for parts in zip(*own, strict=True)))
    return faces, torch.cat(turned)[:TURNED_FACES].flatten(0, 1).cpu()


def _drawn_poses(generator: Generator) -> Tensor:
    """[POSES_DRAWN, 2]: poses of latents that are the same every time."""
    shape = (POSES_DRAWN, generator.mapping.z_dim)
    z = torch.from_numpy(np.random.RandomState(0).randn(*shape)).to(generator.intrinsics)
    return generator.latent(z).pose


def _seen_poses(discriminator: Discriminator, images: Tensor, generator: Generator) -> Tensor:
    """[M, 2]: poses that the discriminator sees in images [M, 3, R, R]."""
    size = generator.raw_resolution
    parts = (part.to(generator.intrinsics.device) for part in images.split(AT_ONCE))
    return torch.cat([discriminator(part, resize(part, size)).pose for part in parts])
