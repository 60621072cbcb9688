"""Figures say what they should."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import SIZES
from training.config import Config
from training.data import toy_heads as toy
from training.outputs import figures
from training.presets import build_config


def small_config(preset: str = "toy", **changes) -> Config:
    return build_config(preset, SIZES | changes)


def read(path) -> torch.Tensor:
    """uint8 [3, H, W]"""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def levels(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to 0 .. 255."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte()


def test_grid_tiles_row_by_row_pixel_by_pixel(tmp_path):
    pixels = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    figures.save_image_grid(tmp_path / "grid.png", pixels / 127.5 - 1, columns=3)
    grid = read(tmp_path / "grid.png")
    assert grid.shape == (3, 8, 18)
    for i in range(5):
        row, column = divmod(i, 3)
        cell = grid[:, 4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
        assert torch.equal(cell, pixels[i])
    assert (grid[:, 4:, 12:] == 255).all()


@pytest.mark.parametrize(
    ("count", "layout"),
    [(1, (1, 1)), (4, (2, 2)), (5, (2, 3)), (7, (3, 3)), (11, (3, 4)), (32, (4, 8))],
)
def test_grid_is_balanced_by_default(count, layout):
    grid = figures.tile(torch.zeros(count, 3, 2, 2))
    assert (grid.height // 2, grid.width // 2) == layout


def test_values_out_of_range_are_clamped():
    assert np.asarray(figures.tile(torch.full((1, 3, 1, 1), 1.7))).max() == 255
    assert np.asarray(figures.tile(torch.full((1, 3, 1, 1), -1.7))).max() == 0


def test_depth_shows_emptiness_white_and_the_near_brighter():
    depth = torch.tensor([2.4, 2.7, 3.0, 2.4]).reshape(1, 1, 2, 2)
    opacity = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    colors = figures.depth_colors(depth, opacity, small_config())[0].flatten(1).T
    near, middle, far, empty = colors.mean(dim=1)
    assert near > middle > far and torch.equal(colors[3], torch.ones(3))
    half = figures.depth_colors(depth, opacity / 2, small_config())[0].flatten(1).T
    torch.testing.assert_close(half, (colors + 1) / 2)


def test_depth_scale_is_the_same_for_all_objects():
    """A flat card must not be stretched to look round."""
    depth = torch.tensor([2.700, 2.701]).reshape(1, 1, 1, 2)
    card = figures.depth_colors(depth, torch.ones(1, 1, 1, 2), small_config())
    assert (card[..., 0] - card[..., 1]).abs().max() < 0.02


@pytest.mark.parametrize("pose", [(math.pi / 2, math.pi / 2), (1.1, 1.9)])
def test_normals_of_a_sphere(pose):
    """On a sphere round the origin, normals are directions: known in the world, hence in the
    camera's space."""
    row = torch.zeros(1, 3, dtype=torch.float64)
    sphere = toy.Head(centers=row, radii=row + 0.3, colors=row + 0.5)
    camera = toy.toy_cameras(torch.tensor([pose], dtype=torch.float64))
    view = toy.render_head(sphere, camera, 64, supersample=1)
    normals = figures.normals_from_depth(view.depth[:, None], toy.toy_intrinsics())[0]
    row, column = view.mask[0].nonzero().T
    inner = ((row - 31.5).square() + (column - 31.5).square()).sqrt() < 24
    row, column = row[inner], column[inner]
    offset = torch.stack([column - 31.5, -(row - 31.5)]) / 64  # right and up, in image sizes
    found = normals[:, row, column]
    torch.testing.assert_close(found.norm(dim=0), torch.ones(len(row)))
    distance = view.depth[0, row, column] / (1 + (offset / 4.26339).square().sum(0)).sqrt()
    expected = offset / 4.26339 * distance / 0.3
    torch.testing.assert_close(found[:2], expected, atol=0.03, rtol=0)
    assert (found[2] > 0.5).all()


def test_normals_of_a_wall_face_the_viewer():
    x = (torch.arange(8) + 0.5) / 8 - 0.5
    tangent = torch.stack(torch.meshgrid(x, x, indexing="xy")) / 2.0
    depth = (2 * (1 + tangent.square().sum(0)).sqrt()).reshape(1, 1, 8, 8)
    lens = torch.tensor([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    normals = figures.normals_from_depth(depth, lens)
    expected = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand_as(normals)
    torch.testing.assert_close(normals, expected, atol=1e-5, rtol=0)
    empty = figures.normal_colors(depth, torch.zeros_like(depth), lens)
    assert (empty == 1).all()


def test_pose_plot_shows_both_groups_even_where_they_do_not_spread():
    generated = torch.randn(200, 2) * 10
    estimates = torch.zeros(1, 2), torch.full((20, 2), 30.0)
    plots = [np.array(figures.pose_plot(generated, estimate)) for estimate in estimates]
    a, b = (torch.from_numpy(plot).permute(2, 0, 1).int() for plot in plots)
    assert a.shape == b.shape and (a - b).abs().sum() > 0
    for image in (a, b):
        red, _, blue = image
        assert (red > blue + 40).sum() > 50 and (blue > red + 40).sum() > 50


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "grid.png").mkdir()
    with pytest.raises(OSError):
        figures.save_image_grid(tmp_path / "grid.png", torch.zeros(1, 3, 4, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_importing_figures_imports_no_matplotlib():
    code = "import sys, training.outputs.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
