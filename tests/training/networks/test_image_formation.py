"""Depth maps that turn before a pinhole camera. Values: `tests/test_parity_geod.py`."""

import math

import pytest
import torch

from dnnlib import UserError
from training.networks.image_formation import (
    SIZE,
    Frustum,
    corner_colors,
    surface_normals,
)

OTHER = Frustum(near=1.5, far=2.2, fov=40.0)


def bumpy(frustum: Frustum, seed: int = 0, batch: int = 2) -> torch.Tensor:
    """Smooth depth within the frustum, float64."""
    noise = torch.randn(
        batch, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    smooth = torch.nn.functional.interpolate(noise, size=SIZE, mode="bicubic")[:, 0]
    return frustum.center + (frustum.far - frustum.near) / 4 * torch.tanh(smooth)


def view_of(*numbers: float, batch: int = 2) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64).expand(batch, 6)


def slope(function, at: torch.Tensor, direction: torch.Tensor, step: float = 1e-6) -> float:
    """The directional derivative by central differences."""
    with torch.no_grad():
        change = function(at + step * direction) - function(at - step * direction)
    return change.item() / (2 * step)


@pytest.mark.parametrize("frustum", [Frustum(), OTHER])
@pytest.mark.parametrize("name", ["depth", "normal", "grid"])
def test_gradients_are_those_of_finite_differences(frustum, name):
    """For another lens and other depths than those that the reference has."""
    depth, view = bumpy(frustum), view_of(0.2, -0.3, 0.1, 0.02, -0.03, 0.01)
    random = torch.Generator().manual_seed(1)

    def output(depth, view):
        seen = frustum.depth_from_view(depth, view)
        if name == "grid":
            return frustum.sampling_grid(seen, view)
        return seen if name == "depth" else surface_normals(frustum.points(seen))

    weight = torch.randn(output(depth, view).shape, dtype=torch.float64, generator=random)
    # Coverage jumps at the object's outline, where no gradient is meant to be exact.
    with torch.no_grad():
        seen = (frustum.depth_from_view(depth, view) < frustum.deepest).double()
        inner = -torch.nn.functional.max_pool2d(-seen, 7, 1, 3)
    weight = weight * (inner if name == "depth" else inner[..., None])
    for leaf, function in (
        (depth, lambda x: (output(x, view) * weight).sum()),
        (view, lambda x: (output(depth, x) * weight).sum()),
    ):
        leaf = leaf.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf), leaf)
        direction = torch.randn(leaf.shape, dtype=torch.float64, generator=random)
        expected = slope(function, leaf.detach(), direction, step=1e-8)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_plane_before_the_camera_has_normals_that_point_away_from_it():
    normals = surface_normals(Frustum().points(torch.full((1, SIZE, SIZE), 2.5)))
    away = torch.tensor([0.0, 0, 1]).expand_as(normals)
    torch.testing.assert_close(normals, away, atol=1e-3, rtol=0)


def test_a_surface_that_recedes_to_the_right_has_normals_that_lean_to_the_left():
    depth = torch.linspace(2.3, 2.6, SIZE).expand(1, SIZE, SIZE)
    normals = surface_normals(Frustum().points(depth))
    assert (normals[0, 1:-1, 1:-1, 0] < -0.1).all()
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(1, SIZE, SIZE), atol=1e-3, rtol=0)


def test_a_point_without_extent_has_no_normal_but_a_finite_gradient():
    points = torch.zeros(1, 8, 8, 3, requires_grad=True)
    normals = surface_normals(points)
    assert not normals[0, 1:-1, 1:-1].any()
    normals.sum().backward()
    assert points.grad.isfinite().all()


def test_a_quarter_turn_about_y_moves_what_is_far_to_the_right():
    frustum = Frustum()
    points = torch.tensor([0, 0, frustum.center + 0.2], dtype=torch.float64).expand(2, 1, 1, 3)
    turned = frustum.to_view(points, view_of(0, math.pi / 2, 0, 0, 0, 0))
    expected = torch.tensor([0.2, 0, frustum.center], dtype=torch.float64)
    torch.testing.assert_close(turned[0, 0, 0], expected)


def test_from_view_undoes_to_view():
    frustum, view = OTHER, view_of(0.7, -0.9, 0.4, 0.05, -0.1, 0.3)
    points = frustum.points(bumpy(frustum))
    torch.testing.assert_close(frustum.from_view(frustum.to_view(points, view), view), points)


def test_pixels_are_where_they_were_when_nothing_turns():
    depth = bumpy(OTHER)
    grid = OTHER.sampling_grid(depth, view_of(0, 0, 0, 0, 0, 0))
    index = torch.linspace(-1, 1, SIZE, dtype=torch.float64)
    torch.testing.assert_close(grid[..., 0], index.expand(2, SIZE, SIZE))
    torch.testing.assert_close(grid[..., 1], index[:, None].expand(2, SIZE, SIZE))


def test_an_object_that_does_not_turn_keeps_its_depth_and_lacks_the_last_row_and_column():
    frustum, depth = Frustum(), torch.full((1, SIZE, SIZE), 2.6)
    seen = frustum.depth_from_view(depth, torch.zeros(1, 6))
    torch.testing.assert_close(seen[:, :-1, :-1], depth[:, :-1, :-1])
    assert (seen[:, -1] == frustum.deepest).all() and (seen[:, :, -1] == frustum.deepest).all()


@pytest.mark.parametrize(
    "numbers",
    [
        (0, 0, 0, 10, 0, 0),  # beside the image
        (0, 0, 0, 0, 0, -2.775),  # the camera stands within the object
        (0, 0, 0, 0, 0, -20),  # behind the camera
        (0, 0, 0, 0, 0, 300),  # behind all that is drawn
        (0, math.pi / 2, 0, 0, 0, 0),  # seen from its edge
        (0, math.pi, 0, 0, 0, 0),  # from the back
        (9, -9, 9, 1, 1, 1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_views_beyond_the_range_give_finite_numbers(numbers, dtype):
    frustum = Frustum()
    depth = bumpy(frustum).to(dtype).requires_grad_()
    view = view_of(*numbers).to(dtype).requires_grad_()
    seen = frustum.depth_from_view(depth, view)
    grid = frustum.sampling_grid(seen, view)
    normals = surface_normals(frustum.points(seen))
    assert seen.min() >= frustum.shallowest and seen.max() <= frustum.deepest
    (seen.sum() + grid.sum() + normals.sum()).backward()
    for tensor in (grid, normals, depth.grad, view.grad):
        assert tensor.isfinite().all()


def test_a_turned_picture_shows_the_same_colors_on_white():
    frustum = Frustum()
    left_red = torch.full((1, 3, SIZE, SIZE), -1.0)
    left_red[:, 0, :, : SIZE // 2] = 1
    points = frustum.points(torch.full((1, SIZE, SIZE), 2.7))
    straight = frustum.render_colors(points, corner_colors(left_red))
    torch.testing.assert_close(straight[..., :20, :20], left_red[..., :20, :20])
    away = frustum.to_view(points, torch.tensor([[0, 0, 0, 0.3, 0, 0.0]]))
    moved = frustum.render_colors(away, corner_colors(left_red))
    assert (moved[..., :10] == 1).all()  # nothing is left at the left
    upside_down = frustum.to_view(points, torch.tensor([[0, 0, math.pi, 0, 0, 0.0]]))
    turned = frustum.render_colors(upside_down, corner_colors(left_red))
    torch.testing.assert_close(
        turned[..., 20:40, 44:60], left_red[..., 20:40, 4:20], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    "near, far, fov",
    [
        (0.1, 2.6, 18.8),  # shapenet_cars: an object may come behind the camera
        (3.3, 2.25, 18.8),
        (2.0, 2.0, 18.8),
        (40, 60, 18.8),
        (float("nan"), 3, 18.8),
        (2.25, 3.3, 0),
        (2.25, 3.3, 180),
        (2.25, 3.3, float("nan")),
    ],
)
def test_refuses_depths_and_lenses_that_cannot_be(near, far, fov):
    with pytest.raises(UserError) as refusal:
        Frustum(near, far, fov)
    assert len(str(refusal.value).splitlines()) == 1
