import math

import numpy as np
import pytest
import torch

from training.cameras import mirror_cam2world, rays_from_cameras
from training.data import toy_heads as toy

FRONT = (math.pi / 2, math.pi / 2)
BACK = (3 * math.pi / 2, math.pi / 2)


def head(seed: int) -> toy.Head:
    return toy.Head.random(np.random.default_rng(seed))


def cameras(*poses: tuple[float, float]) -> torch.Tensor:
    return toy.toy_cameras(torch.tensor(poses, dtype=torch.float64))


def lips(image: torch.Tensor) -> torch.Tensor:
    """Pixels that are red without a touch of yellow, as skin and hair have it."""
    red, green, blue = image.float()
    return (red > 2.2 * green) & (blue > 0.8 * green) & (red > 60)


def test_depth_of_a_sphere_is_the_distance_along_the_ray():
    row = torch.zeros(1, 3, dtype=torch.float64)
    sphere = toy.Head(centers=row, radii=row + 0.2, colors=row + 0.5)
    resolution = 33
    view = toy.render_head(sphere, cameras((1.0, 2.0)), resolution, supersample=1)
    directions = rays_from_cameras(
        cameras((1.0, 2.0)), toy.toy_intrinsics(), resolution
    ).directions.reshape(resolution, resolution, 3)
    along = -(directions @ cameras((1.0, 2.0))[0, :3, 3])
    inside = along**2 - 2.7**2 + 0.2**2
    assert torch.equal(view.mask[0], inside > 0)
    expected = (along - inside.clamp(min=0).sqrt()).where(inside > 0, toy.BACKGROUND_DEPTH)
    torch.testing.assert_close(view.depth[0].double(), expected, atol=1e-5, rtol=0)
    assert view.depth[0, 16, 16].item() == pytest.approx(2.5, abs=1e-5)


def test_nearest_surface_agrees_with_marching_along_the_rays():
    someone, camera, resolution, step = head(1), cameras((1.9, 1.3)), 24, 2e-4
    view = toy.render_head(someone, camera, resolution, supersample=1)
    rays = rays_from_cameras(camera, toy.toy_intrinsics(), resolution)
    marched = torch.full((resolution**2,), toy.BACKGROUND_DEPTH, dtype=torch.float64)
    for distance in torch.arange(3.1, 2.2, -step, dtype=torch.float64):  # nearest written last
        points = rays.origins[0] + distance * rays.directions[0]
        scaled = (points[:, None] - someone.centers) / someone.radii
        marched[(scaled.square().sum(-1) < 1).any(-1)] = distance
    difference = (view.depth[0].flatten() - marched).abs()
    assert (difference > 2 * step).float().mean() < 0.005  # rays that graze an edge


def test_supersampling_averages_colors_over_the_white_background():
    fine = toy.render_head(head(2), cameras(FRONT), 64, supersample=1).image.float()
    coarse = toy.render_head(head(2), cameras(FRONT), 32, supersample=2).image.float()
    average = torch.nn.functional.avg_pool2d(fine, 2)
    assert (coarse - average).abs().max() <= 1  # rounding
    assert (coarse[0, :, 0, 0] == 255).all()


@pytest.mark.parametrize("pose", [(1.1, 1.9), (2.5, 1.0), FRONT])
def test_heads_and_their_light_are_left_right_symmetric(pose):
    camera = cameras(pose)
    view = toy.render_head(head(3), camera, 48)
    mirrored = toy.render_head(head(3), mirror_cam2world(camera, "horizontal"), 48)
    assert (view.image.flip(-1).int() - mirrored.image.int()).abs().float().mean() < 0.05
    torch.testing.assert_close(view.depth.flip(-1), mirrored.depth, atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_face_looks_toward_positive_z_with_the_mouth_below(seed):
    front, back = toy.render_head(head(seed), cameras(FRONT, BACK), 64).image
    mouth = lips(front).nonzero().float()
    assert len(mouth) > 15
    row, column = mouth.mean(0)
    assert row > 36 and column == pytest.approx(31.5, abs=0.5)
    assert not lips(back).any()
    up_side_down = toy.render_head(head(seed), cameras(FRONT), 64).image[0].flip(-2)
    assert (front.float() - up_side_down.float()).abs().mean() > 5


def test_turning_to_the_right_moves_the_nose_to_the_left():
    """h grows toward +x, so the camera sees the head's +x side and the face points left."""
    camera = cameras((FRONT[0] + 0.6, FRONT[1]))
    assert camera[0, 0, 3] > 0
    column = lips(toy.render_head(head(4), camera, 64).image[0]).nonzero().float().mean(0)[1]
    assert column < 28


def test_every_head_fills_the_frame_and_stands_out_from_white():
    rng = np.random.default_rng(0)
    for seed in range(30):
        camera = toy.toy_cameras(torch.from_numpy(toy.sample_pose(rng))[None])
        view = toy.render_head(head(seed), camera, 32)
        assert 0.3 < view.mask.float().mean() < 0.7
        silhouette = toy.foreground_mask(view.image)
        assert not (view.mask & ~silhouette).any()
        assert (silhouette & ~view.mask).float().mean() < 0.05  # barely covered edge pixels


def test_identities_differ():
    images = torch.cat([toy.render_head(head(seed), cameras(FRONT), 16).image for seed in range(6)])
    distances = torch.cdist(images.flatten(1).float(), images.flatten(1).float())
    assert (distances + 1e9 * torch.eye(6)).min() > 100


def test_poses_follow_the_clipped_normal_distribution():
    rng = np.random.default_rng(0)
    poses = np.stack([toy.sample_pose(rng) for _ in range(4000)]) - math.pi / 2
    np.testing.assert_allclose(poses.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(poses.std(0), (0.4, 0.35), rtol=0.05)
    np.testing.assert_allclose(np.abs(poses).max(0), (1.2, 0.8))
