"""Warping and relief on scenes whose geometry is known in closed form."""

import math

import numpy as np
import pytest
import torch

from metrics import geometry
from metrics.context import Views
from training.cameras import intrinsics_from_focal, rays_from_cameras
from training.data.toy_heads import Head, render_head, toy_cameras, toy_intrinsics

SIZE = 96
TURN = math.radians(20)


def head_views(count: int = 3, **render) -> Views:
    """Two views of toy heads, by the ray tracer that makes the data set."""
    middle = torch.rand(count, 2, generator=torch.Generator().manual_seed(1)) * 0.6 + 1.27
    poses = torch.stack([middle, middle + torch.tensor([TURN, 0])], dim=1)
    shots = [
        render_head(Head.random(np.random.default_rng(i)), toy_cameras(pose), SIZE)
        for i, pose in enumerate(poses)
    ]
    return Views(
        torch.stack([shot.image for shot in shots]) / 127.5 - 1,
        torch.stack([shot.depth for shot in shots])[:, :, None],
        torch.stack([shot.mask for shot in shots])[:, :, None],
        toy_cameras(poses.flatten(0, 1)).unflatten(0, (count, 2)),
        toy_intrinsics().expand(count, 3, 3),
    )


def mean_errors(views: Views) -> geometry.WarpErrors:
    sums = geometry.WarpErrors(*(part.sum() for part in geometry.warp_errors(views)))
    assert sums.compared > 0
    return geometry.WarpErrors(
        *((part / sums.compared).item() for part in sums[:3]),
        sums.compared.item(),
        (sums.compared / sums.inside).item(),
    )


def ball_depth(radius: float, cam2world: torch.Tensor, focal: float, size: int):
    """Distances [V, 1, r, r] and silhouette of a ball at the origin."""
    rays = rays_from_cameras(cam2world, intrinsics_from_focal(focal), size)
    along = -(rays.origins * rays.directions).sum(-1)
    under = radius**2 - rays.origins.square().sum(-1) + along.square()
    depth = along - under.clamp(min=0).sqrt()
    return depth.reshape(-1, 1, size, size), (under > 0).reshape(-1, 1, size, size)


def single_view(depth, mask, cam2world, focal) -> Views:
    image = torch.zeros(len(depth), 1, 3, *depth.shape[-2:])
    intrinsics = intrinsics_from_focal(focal).expand(len(depth), 3, 3)
    return Views(image, depth[:, None], mask[:, None], cam2world[:, None], intrinsics)


def card_depth(normal: torch.Tensor, cam2world: torch.Tensor, focal: float, size: int):
    """Distances to the plane through the origin."""
    rays = rays_from_cameras(cam2world, intrinsics_from_focal(focal), size)
    return (-(rays.origins @ normal) / (rays.directions @ normal)).reshape(-1, 1, size, size)


def test_projection_undoes_unprojection():
    views = head_views()
    cam2world = views.cam2world[:, 0]
    points = geometry.unproject(views.depth[:, 0], cam2world, views.intrinsics)
    place = geometry.project(points, cam2world, views.intrinsics)
    centers = (torch.arange(SIZE) + 0.5) / SIZE
    assert torch.allclose(place.pixel[0, 5, :, 0], centers, atol=1e-4)
    assert torch.allclose(place.pixel[0, :, 5, 1], centers, atol=1e-4)
    assert torch.allclose(place.distance, views.depth[:, 0], atol=1e-5)


def test_unprojection_follows_the_renderers_rays():
    views = head_views()
    rays = rays_from_cameras(views.cam2world[:, 0], toy_intrinsics(), SIZE)
    expected = rays.origins + rays.directions * views.depth[:, 0].flatten(2).mT
    points = geometry.unproject(views.depth[:, 0], views.cam2world[:, 0], views.intrinsics)
    assert torch.allclose(points.flatten(1, 2), expected, atol=1e-5)


def test_true_geometry_is_consistent():
    errors = mean_errors(head_views())
    assert errors.color < 0.015 < errors.unwarped / 3
    assert errors.depth < 0.004
    assert errors.inside > 0.5  # the share that was compared


def test_enlarged_images_are_compared_at_their_own_size():
    views = head_views()
    half = torch.nn.functional.avg_pool2d(views.depth.flatten(0, 1), 2).unflatten(0, (3, 2))
    mask = views.mask[..., ::2, ::2] & views.mask[..., 1::2, 1::2]
    errors = mean_errors(views._replace(depth=half, mask=mask))
    assert errors.color < 0.03 and errors.depth < 0.01


@pytest.mark.parametrize("part, error", [("image", "color"), ("depth", "depth")])
def test_what_turns_with_the_camera_is_inconsistent(part, error):
    """The same from everywhere, as of a card that follows the camera."""
    views = head_views()
    stuck = getattr(views, part)[:, :1].expand_as(getattr(views, part))
    found = mean_errors(views._replace(**{part: stuck}))
    assert getattr(found, error) > 3 * getattr(mean_errors(views), error)


def test_flat_depth_warps_to_wrong_colors():
    views = head_views()
    flat = torch.full_like(views.depth, 2.7)
    assert mean_errors(views._replace(depth=flat)).color > 2 * mean_errors(views).color


def test_hidden_surface_is_not_compared():
    """A ball's far side seen by nobody: turned by 180 degrees, the two views share nothing."""
    poses = torch.tensor([[math.pi / 2, math.pi / 2], [-math.pi / 2, math.pi / 2]])
    cam2world = toy_cameras(poses)
    depth, mask = ball_depth(0.2, cam2world, 4.26, 64)
    views = Views(
        torch.zeros(1, 2, 3, 64, 64),
        depth[None],
        mask[None],
        cam2world[None],
        intrinsics_from_focal(4.26).expand(1, 3, 3),
    )
    assert geometry.warp_errors(views).compared.item() == 0


def test_relief_of_a_ball_from_afar():
    focal, distance = 400.0, 500.0
    cam2world = torch.eye(4)[None].clone()
    cam2world[0, 2, 3] = -distance
    depth, mask = ball_depth(0.5, cam2world.double(), focal, 256)
    views = single_view(depth, mask, cam2world.double(), focal)
    views = views._replace(intrinsics=views.intrinsics.double())
    assert geometry.relief(views).item() == pytest.approx(1 / math.sqrt(72), rel=0.03)


@pytest.mark.parametrize("h", [math.pi / 2, math.pi / 2 + 0.6])
def test_relief_of_a_card_is_zero_however_it_is_turned(h):
    cam2world = toy_cameras(torch.tensor([[h, 1.2]]))
    depth = card_depth(torch.tensor([0.0, 0.0, 1.0]), cam2world, 4.26, 64)
    views = single_view(depth, torch.ones_like(depth, dtype=torch.bool), cam2world, 4.26)
    assert geometry.relief(views).item() < 1e-5
    deeper = views._replace(depth=views.depth + 0.1 * torch.rand_like(views.depth))
    assert geometry.relief(deeper).item() > 0.01


def test_relief_of_heads_is_far_from_flat_and_of_nothing_is_nan():
    views = head_views()
    assert (geometry.relief(views) > 0.05).all()
    empty = views._replace(mask=torch.zeros_like(views.mask))
    assert geometry.relief(empty).isnan().all()
