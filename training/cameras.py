"""Cameras: pose -> cam2world, mirrors, orbits, intrinsics, rays. Pure functions.

A pose is a pair (h, v) of angles in radians on a sphere round the origin: h turns left and right,
v up and down, and equal steps of v cover equal areas. h = v = pi/2 stands at (0, 0, +radius) and
looks down -z. Camera axes are OpenCV's: x right, y down, z forward; the world's y axis points up.

Two unit vectors belong to a camera. Its *direction* goes from the origin to where it stands; poses
and their degrees are counted by it. Its *viewing direction* goes against the optical axis, from the
pivot that it looks at to the camera; it does not depend on where a world has its origin, so worlds
are compared by it (metrics). The two differ where the pivot is not the origin (preset ffhq).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_utils.devices import constant

# v = 0 and v = pi are the poles, where "up" loses its meaning and arccos its derivative.
POLE_MARGIN = 1e-5


class Rays(NamedTuple):
    """One ray per pixel, row by row from the top left, in world units.

    origins: [B, H*W, 3].  directions: [B, H*W, 3], of unit length.
    """

    origins: Tensor
    directions: Tensor


def cam2world_from_pose(pose: Tensor, radius: float, pivot: tuple[float, float, float]) -> Tensor:
    """Cameras on a sphere round the world's origin, looking at a pivot.

    Args:
        pose: [B, 2], (h, v) in radians.
        radius: of the sphere, in world units.
        pivot: the point that cameras look at, in world units; the sphere does not move with it.

    Returns:
        [B, 4, 4] with columns (right, down, forward, origin).
    """
    h, v = pose.unbind(-1)
    v = v.clamp(POLE_MARGIN, math.pi - POLE_MARGIN)
    theta = math.pi - h
    phi = torch.arccos(1 - 2 * v / math.pi)
    position = torch.stack([phi.sin() * theta.cos(), phi.cos(), phi.sin() * theta.sin()], dim=-1)
    origin = radius * position
    forward = torch.nn.functional.normalize(constant(pivot, origin) - origin, dim=-1)
    up = constant([0.0, 1.0, 0.0], pose).expand_as(forward)
    right = -torch.nn.functional.normalize(torch.linalg.cross(up, forward), dim=-1)
    down = torch.nn.functional.normalize(torch.linalg.cross(forward, right), dim=-1)
    top = torch.stack([right, down, forward, origin], dim=-1)
    bottom = constant([0.0, 0.0, 0.0, 1.0], top).expand(len(pose), 1, 4)
    return torch.cat([top, bottom], dim=-2)


def pose_from_cam2world(cam2world: Tensor, mean_h: float) -> Tensor:
    """(h, v) [B, 2] of where cameras [B, 4, 4] stand; h lies within pi of `mean_h`."""
    direction = torch.nn.functional.normalize(cam2world[:, :3, 3], dim=-1)
    return pose_from_direction(direction, mean_h)


def pose_from_direction(direction: Tensor, mean_h: float) -> Tensor:
    """(h, v) [B, 2] of cameras that stand in `direction`, unit vectors [B, 3] from the origin."""
    x, y, z = direction.unbind(-1)
    h = math.pi - torch.atan2(z, x)
    h = torch.remainder(h - mean_h + math.pi, 2 * math.pi) - math.pi + mean_h
    return torch.stack([h, (1 - y) * (math.pi / 2)], dim=-1)


def viewing_directions(cam2world: Tensor) -> Tensor:
    """Unit vectors [..., 3] against the optical axes of cameras [..., 4, 4]."""
    return -cam2world[..., :3, 2]


def pose_from_viewing_direction(
    direction: Tensor, radius: float, pivot: Sequence[float], mean_h: float
) -> Tensor:
    """Poses of the cameras that `cam2world_from_pose` would place in these viewing directions.

    Args:
        direction: unit vectors [B, 3] from the pivot to the cameras.
        radius: of the sphere of cameras, world units; the pivot lies within.
        pivot: world units.
        mean_h: h lies within pi of it.

    Returns:
        (h, v) [B, 2] in radians.
    """
    center = constant(pivot, direction)
    along = direction @ center
    distance = (along.square() + radius**2 - center.square().sum()).sqrt() - along
    origin = center + distance[:, None] * direction
    return pose_from_direction(origin / radius, mean_h)


def orbit(cam2world: Tensor, yaw: float, pivot: Sequence[float]) -> Tensor:
    """Cameras turned round the vertical through the pivot, at the same distance from it.

    Args:
        cam2world: [B, 4, 4].
        yaw: degrees, from +z toward +x.
        pivot: world units.

    Returns:
        A new [B, 4, 4].
    """
    cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    turn = constant([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], cam2world)
    center = constant(pivot, cam2world)
    turned = cam2world.clone()
    turned[:, :3, :3] = turn @ cam2world[:, :3, :3]
    turned[:, :3, 3] = (cam2world[:, :3, 3] - center) @ turn.mT + center
    return turned


def pose_from_degrees(directions: Tensor, mean_h: float) -> Tensor:
    """(yaw, pitch) [..., 2] in degrees -> (h, v) [..., 2] in radians."""
    yaw, pitch = torch.deg2rad(directions).unbind(-1)
    # v counts areas: the height of the camera on its sphere, cos phi = 1 - 2 v / pi, is sin pitch.
    return torch.stack([mean_h + yaw, (1 - pitch.sin()) * (math.pi / 2)], dim=-1)


def degrees_from_pose(pose: Tensor, mean_h: float) -> Tensor:
    """The inverse of `pose_from_degrees`; v beyond a pole counts as the pole."""
    h, v = pose.unbind(-1)
    pitch = torch.arcsin((1 - 2 * v / math.pi).clamp(-1, 1))
    return torch.rad2deg(torch.stack([h - mean_h, pitch], dim=-1))


# Entries (row, column) of cam2world that change sign when the scene is reflected.
_MIRRORED_ENTRIES = {
    "horizontal": ((2, 0), (0, 1), (0, 2), (0, 3)),
    "vertical": ((2, 1), (0, 1), (1, 0), (1, 2), (1, 3)),
    # ShapeNet's objects face +x, so their left and right swap with z.
    "shapenet_horizontal": ((0, 0), (2, 1), (2, 2), (2, 3)),
}


def mirror_cam2world(cam2world: Tensor, kind: str) -> Tensor:
    """The camera reflected through a symmetry plane of the world.

    Args:
        cam2world: [B, 4, 4].
        kind: 'horizontal' (left/right), 'vertical' (up/down) or 'shapenet_horizontal'.

    Returns:
        A new [B, 4, 4].

    Raises:
        KeyError: for another kind.
    """
    sign = torch.ones(4, 4, dtype=cam2world.dtype)
    for entry in _MIRRORED_ENTRIES[kind]:
        sign[entry] = -1
    return cam2world * sign.to(cam2world.device, non_blocking=True)


def focal_from_fov(fov_degrees: float) -> float:
    """Focal length in image widths; the constants are the published ones (an FFHQ convention)."""
    return 1 / (math.tan(fov_degrees * 3.14159 / 360) * 1.414)


def intrinsics_from_focal(focal: float) -> Tensor:
    """[3, 3] pinhole intrinsics, normalized by image size, principal point in the middle."""
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])


def intrinsics_from_fov(fov_degrees: float) -> Tensor:
    """[3, 3]; see `focal_from_fov` and `intrinsics_from_focal`."""
    return intrinsics_from_focal(focal_from_fov(fov_degrees))


def rays_from_cameras(cam2world: Tensor, intrinsics: Tensor, resolution: int) -> Rays:
    """Rays through the centers of all pixels of a square image.

    Args:
        cam2world: [B, 4, 4].
        intrinsics: [B, 3, 3] or [3, 3], normalized by image size.
        resolution: pixels a side.

    Returns:
        Rays [B, resolution^2, 3], differentiable in the cameras.
    """
    centers = torch.arange(resolution, device=cam2world.device, dtype=cam2world.dtype) + 0.5
    y, x = torch.meshgrid(centers / resolution, centers / resolution, indexing="ij")
    intrinsics = intrinsics.to(cam2world).expand(len(cam2world), 3, 3)
    fx, fy = intrinsics[:, 0, 0, None], intrinsics[:, 1, 1, None]
    cx, cy, skew = intrinsics[:, 0, 2, None], intrinsics[:, 1, 2, None], intrinsics[:, 0, 1, None]
    y_camera = (y.reshape(1, -1) - cy) / fy
    x_camera = (x.reshape(1, -1) - cx - skew * y_camera) / fx
    camera = torch.stack([x_camera, y_camera, torch.ones_like(x_camera)], dim=-1)
    directions = torch.nn.functional.normalize(camera @ cam2world[:, :3, :3].mT, dim=-1)
    origins = cam2world[:, None, :3, 3].expand_as(directions)
    return Rays(origins, directions)
