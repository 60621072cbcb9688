"""Figures: grids of images, colors of depth and of normals, the plot of poses.

Images are float [N, 3, H, W] in [-1, 1]; a finished figure is a PIL image (np.asarray makes an
array of it). Directions of view are (yaw, pitch) in degrees around the canonical one, h = h_mean
and v = pi/2: positive yaw moves the camera to the side where h grows, positive pitch raises it.
"""

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dnnlib import atomic_write
from torch_utils.images import to_uint8
from training.cameras import rays_from_cameras
from training.config import Config

PLOT_INCHES, PLOT_DPI = 7, 100


def tile(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images side by side, row by row, without borders; empty cells are white.

    Args:
        images: [N, 3, H, W] in [-1, 1].
        columns: None picks a layout close to a square, without empty cells where there is one.
    """
    count, _, height, width = images.shape
    columns = columns or balanced_columns(count)
    rows = math.ceil(count / columns)
    cells = torch.full((rows * columns, 3, height, width), 255, dtype=torch.uint8)
    cells[:count] = to_uint8(images)
    grid = cells.reshape(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    return Image.fromarray(grid.reshape(rows * height, columns * width, 3).numpy())


def balanced_columns(count: int) -> int:
    """Columns of a grid of `count` cells that is close to a square."""
    root = math.ceil(math.sqrt(count))
    return next((n for n in range(root, 2 * root - 1) if count % n == 0), root)


def enlarge(images: Tensor, factor: int) -> Tensor:
    """Repeat every pixel `factor` times in both directions."""
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def save_image(path: str | os.PathLike, image: Image.Image) -> None:
    """Write a PNG, whole or not at all. Raises OSError."""
    encoded = io.BytesIO()
    image.save(encoded, format="png")
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(encoded.getbuffer())


def save_image_grid(path: str | os.PathLike, images: Tensor, columns: int | None = None) -> None:
    """Write a PNG of images [N, 3, H, W]; see `tile`."""
    save_image(path, tile(images, columns))


def depth_colors(depth: Tensor, opacity: Tensor, config: Config) -> Tensor:
    """Depth and opacity [N, 1, H, W] -> images: near is yellow, far is violet, empty is white.

    The scale is that of the cube which the field fills, the same for all pictures of a network: a
    flat object looks flat.
    """
    import matplotlib

    radius, half = config.camera.radius, config.rendering.box_warp / 2
    near = max(radius - half, config.rendering.near)
    far = min(radius + half, config.rendering.far)
    nearness = ((far - depth[:, 0]) / (far - near)).clamp(0, 1)
    rgb = matplotlib.colormaps["viridis"](nearness.cpu().numpy())[..., :3].astype(np.float32)
    colors = torch.from_numpy(rgb).permute(0, 3, 1, 2).to(depth.device)
    return _on_white(colors * 2 - 1, opacity)


def normals_from_depth(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Unit normals [N, 3, H, W] of the surfaces that depth images show, in the camera's space.

    The axes are those of normal maps: x to the right, y up, z toward the viewer.

    Args:
        depth: [N, 1, H, W], distance from the camera in world units.
        intrinsics: [N, 3, 3] or [3, 3].
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


def pose_plot(generated: Tensor, estimated: Tensor) -> Image.Image:
    """A scatter plot of directions [N, 2], (yaw, pitch) in degrees, with its marginals.

    Args:
        generated: where the generator puts its cameras.
        estimated: from where photographs were taken, as the discriminator estimates.
    """
    from matplotlib.figure import Figure

    groups = {
        "generator": (generated.cpu().numpy(), "tab:blue"),
        "photographs, estimated by D": (estimated.cpu().numpy(), "tab:red"),
    }
    figure = Figure(figsize=(PLOT_INCHES, PLOT_INCHES), layout="constrained")
    axes = figure.subplot_mosaic(
        [["yaw", "."], ["both", "pitch"]], width_ratios=(4, 1), height_ratios=(1, 4)
    )
    together = np.concatenate([directions for directions, _ in groups.values()])
    bins = [np.histogram_bin_edges(angles, bins=40) for angles in together.T]
    for label, (directions, color) in groups.items():
        _plot_directions(axes, directions, bins, label, color)
    _label_axes(axes)
    encoded = io.BytesIO()
    figure.savefig(encoded, dpi=PLOT_DPI, format="png")
    return Image.open(encoded).convert("RGB")


def _plot_directions(
    axes: Any, directions: np.ndarray, bins: list[np.ndarray], label: str, color: str
) -> None:
    yaw, pitch = directions.T
    size = np.clip(3000 / len(yaw), 4, 40)  # the fewer the points, the larger
    axes["both"].scatter(yaw, pitch, size, color, alpha=0.5, linewidths=0, label=label)
    style = {"weights": np.full(len(yaw), 1 / len(yaw)), "color": color, "alpha": 0.5}
    axes["yaw"].hist(yaw, bins[0], **style)
    axes["pitch"].hist(pitch, bins[1], orientation="horizontal", **style)


def _label_axes(axes: Any) -> None:
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
