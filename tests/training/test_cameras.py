"""Cameras against their own geometry; against the reference they are tested in test_parity."""

import math

import pytest
import torch

from training import cameras

RADIUS, PIVOT = 2.7, (0.0, 0.1, 0.2)
POSES = torch.tensor(
    [[1.2, 1.4], [math.pi / 2, math.pi / 2], [3.0, 0.2], [-2.0, 2.9], [5.5, 1.7]],
    dtype=torch.float64,
)
REFLECTIONS = {  # kind: (world axis that changes sign, image axis that is flipped)
    "horizontal": (0, -1),
    "vertical": (1, -2),
    "shapenet_horizontal": (2, -1),
}


def test_cameras_stand_on_the_sphere_and_look_at_the_pivot():
    cam2world = cameras.cam2world_from_pose(POSES, RADIUS, PIVOT)
    rotation, origin = cam2world[:, :3, :3], cam2world[:, :3, 3]
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotation)
    torch.testing.assert_close(rotation.mT @ rotation, identity)
    assert (rotation.det() > 0).all()
    torch.testing.assert_close(origin.norm(dim=-1), torch.full([5], RADIUS, dtype=torch.float64))
    towards = origin.new_tensor(PIVOT) - origin
    in_camera = (rotation.mT @ towards[..., None]).squeeze(-1)  # in the camera's own axes
    torch.testing.assert_close(in_camera[:, :2], torch.zeros_like(in_camera[:, :2]))
    assert (in_camera[:, 2] > 0).all()
    assert (rotation[:, 1, 1] < 0).all()  # the image's y axis points down
    torch.testing.assert_close(cam2world[:, 3], origin.new_tensor([[0, 0, 0, 1.0]]).expand(5, 4))


def test_canonical_pose_stands_in_front_and_looks_down_minus_z():
    cam2world = cameras.cam2world_from_pose(torch.full((1, 2), math.pi / 2), 2.0, (0.0, 0.0, 0.0))
    expected = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2], [0, 0, 0, 1]])
    torch.testing.assert_close(cam2world[0], expected, atol=1e-6, rtol=0)


def test_equal_steps_of_v_are_equal_areas():
    """The area of a zone of the sphere goes with its height."""
    v = torch.linspace(0.1, 3.0, 9)
    heights = cameras.cam2world_from_pose(torch.stack([v, v], dim=1), RADIUS, PIVOT)[:, 1, 3]
    torch.testing.assert_close(heights, RADIUS * (1 - 2 * v / math.pi))


@pytest.mark.parametrize("v", [0.0, math.pi, -0.5, 4.0])
def test_poles_are_finite_with_finite_gradients(v):
    pose = torch.tensor([[1.0, v]], requires_grad=True)
    cam2world = cameras.cam2world_from_pose(pose, RADIUS, (0.0, 0.0, 0.0))
    cam2world.square().sum().backward()
    assert cam2world.isfinite().all() and pose.grad.isfinite().all()
    assert cam2world[0, :3, :3].det().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", REFLECTIONS)
def test_mirroring_twice_is_the_identity_and_leaves_its_input(kind):
    cam2world = cameras.cam2world_from_pose(POSES, RADIUS, PIVOT)
    before = cam2world.clone()
    mirrored = cameras.mirror_cam2world(cam2world, kind)
    assert not torch.equal(mirrored, cam2world)
    assert torch.equal(cameras.mirror_cam2world(mirrored, kind), before)
    assert torch.equal(cam2world, before)
    assert (mirrored[:, :3, :3].det() > 0).all()


@pytest.mark.parametrize("kind", REFLECTIONS)
def test_mirrored_scene_from_the_mirrored_camera_is_the_flipped_image(kind):
    world_axis, image_axis = REFLECTIONS[kind]
    sign = torch.ones(3, dtype=torch.float64)
    sign[world_axis] = -1

    def photograph(field, cam2world):
        rays = cameras.rays_from_cameras(cam2world, cameras.intrinsics_from_focal(3.0), 6)
        t = torch.linspace(2, 3.5, 20, dtype=torch.float64)[:, None]
        points = rays.origins[:, :, None] + t * rays.directions[:, :, None]
        return field(points).sum(dim=-1).unflatten(1, (6, 6))

    def scene(points):  # without any symmetry
        return (points @ points.new_tensor([1.0, 2.3, -0.7]) + points[..., 0] ** 2).sin()

    cam2world = cameras.cam2world_from_pose(POSES, RADIUS, PIVOT)
    mirrored = cameras.mirror_cam2world(cam2world, kind)
    image = photograph(scene, cam2world)
    torch.testing.assert_close(
        photograph(lambda points: scene(points * sign), mirrored), image.flip(image_axis)
    )
    assert not torch.allclose(photograph(scene, mirrored), image.flip(image_axis))


def test_unknown_mirror():
    with pytest.raises(KeyError):
        cameras.mirror_cam2world(torch.eye(4)[None], "diagonal")


def test_focal_length_of_a_field_of_view():
    """Up to the published constants, half the diagonal's field of view."""
    assert cameras.focal_from_fov(18.837) == pytest.approx(4.26339, abs=1e-4)
    exact = 1 / (math.sqrt(2) * math.tan(math.radians(40) / 2))
    assert cameras.focal_from_fov(40) == pytest.approx(exact, rel=1e-3)


def test_rays_pass_through_the_centers_of_pixels_row_by_row():
    intrinsics = torch.tensor([[3.0, 0.3, 0.4], [0, 2.5, 0.6], [0, 0, 1]], dtype=torch.float64)
    cam2world = cameras.cam2world_from_pose(POSES, RADIUS, PIVOT)
    rays = cameras.rays_from_cameras(cam2world, intrinsics, 4)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(5, 16).double())
    points = rays.origins + 1.7 * rays.directions
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    in_camera = (homogeneous @ cam2world.inverse().mT)[..., :3] @ intrinsics.mT
    pixels = in_camera[..., :2] / in_camera[..., 2:]
    index = torch.arange(16)
    centers = torch.stack([(index % 4 + 0.5) / 4, (index // 4 + 0.5) / 4], dim=-1)
    torch.testing.assert_close(pixels, centers.expand(5, 16, 2).double())


def test_rays_are_differentiable_in_the_pose():
    def directions(pose):
        cam2world = cameras.cam2world_from_pose(pose, RADIUS, PIVOT)
        rays = cameras.rays_from_cameras(cam2world, torch.eye(3), 2)
        return rays.origins, rays.directions

    assert torch.autograd.gradcheck(directions, POSES[:2].clone().requires_grad_())


def test_degrees_are_angles_of_the_camera():
    directions = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 30.0], [-70.0, -50.0]])
    pose = cameras.pose_from_degrees(directions, mean_h=math.pi / 2)
    assert pose[0].tolist() == pytest.approx([math.pi / 2] * 2)
    x, y, z = cameras.cam2world_from_pose(pose, 1.0, (0.0, 0.0, 0.0))[:, :3, 3].T
    azimuth, elevation = torch.rad2deg(torch.atan2(x, z)), torch.rad2deg(torch.arcsin(y))
    torch.testing.assert_close(torch.stack([azimuth, elevation], 1), directions, atol=1e-3, rtol=0)
    back = cameras.degrees_from_pose(pose, mean_h=math.pi / 2)
    torch.testing.assert_close(back, directions, atol=1e-3, rtol=0)


def test_poses_beyond_the_poles_are_shown_at_the_poles():
    v = torch.tensor([[1.0, -0.5], [1.0, 4.0]])
    assert cameras.degrees_from_pose(v, 1.0).tolist() == [[0.0, 90.0], [0.0, -90.0]]


@pytest.mark.parametrize("mean_h", [math.pi / 2, math.pi])
def test_pose_of_a_camera_inverts_the_camera_of_a_pose(mean_h):
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(100, 2, generator=generator, dtype=torch.float64)
    poses = random * torch.tensor([2 * math.pi, 3.0]) + torch.tensor([mean_h - math.pi, 0.05])
    cam2world = cameras.cam2world_from_pose(poses, 1.7, (0.0, 0.0, 0.2))
    torch.testing.assert_close(cameras.pose_from_cam2world(cam2world, mean_h), poses)


@pytest.mark.parametrize("pivot", [(0.0, 0.0, 0.0), (0.0, 0.1, 0.2)])
def test_orbit_turns_round_the_pivot(pivot):
    pose = torch.tensor([[1.4, 1.3], [2.0, 1.8]])
    before = cameras.cam2world_from_pose(pose, RADIUS, pivot)
    turned = cameras.orbit(before, 30, pivot)
    center = torch.tensor(pivot)
    distances = [(c[:, :3, 3] - center).norm(dim=1) for c in (turned, before)]
    torch.testing.assert_close(*distances)
    to_pivot = torch.nn.functional.normalize(center - turned[:, :3, 3], dim=1)
    torch.testing.assert_close(turned[:, :3, 2], to_pivot)
    longitude = [torch.atan2(*cameras.viewing_directions(c)[:, ::2].T) for c in (turned, before)]
    torch.testing.assert_close(longitude[0] - longitude[1], torch.full((2,), math.radians(30)))
    if pivot == (0.0, 0.0, 0.0):  # the same as a larger h
        larger = pose + torch.tensor([math.radians(30), 0])
        expected = cameras.cam2world_from_pose(larger, RADIUS, pivot)
        torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("radius, pivot", [(1.7, (0.0, 0.0, 0.0)), (2.7, (0.0, 0.0, 0.2))])
def test_viewing_directions_start_at_the_pivot_and_poses_at_the_origin(radius, pivot):
    """For ffhq's pivot the two are up to some degrees apart; each has its way back to the pose."""
    cam2world = cameras.cam2world_from_pose(POSES, radius, pivot)
    viewing = cameras.viewing_directions(cam2world)
    from_pivot = cam2world[:, :3, 3] - torch.tensor(pivot, dtype=torch.float64)
    torch.testing.assert_close(viewing, torch.nn.functional.normalize(from_pivot, dim=1))
    back = cameras.pose_from_viewing_direction(viewing, radius, pivot, POSES[0, 0].item())
    again = cameras.cam2world_from_pose(back, radius, pivot)
    torch.testing.assert_close(again, cam2world)
    direction = cam2world[:, :3, 3] / radius
    apart = torch.acos((viewing * direction).sum(dim=1).clamp(max=1)).rad2deg().max()
    assert apart > 3 if any(pivot) else apart < 1e-4
