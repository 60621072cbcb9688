"""From the world to the screen: where cameras are, and how they project."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .ops.registration import is_traced

Array = Tensor | np.ndarray
Vector = Array | Sequence[float]

_SMALLEST_Z = 1e-6


def look_at(
    vertices: Tensor, eye: Vector, at: Vector = (0, 0, 0), up: Vector = (0, 1, 0)
) -> Tensor:
    """Vertices in the space of a camera whose z axis points from `eye` to `at`.

    The other axes are x = up x z and y = z x x.

    Args:
        vertices: [B, V, 3].
        eye: [3] or [B, 3].
        at: [3] or [B, 3].
        up: [3] or [B, 3].

    Returns:
        [B, V, 3].

    Raises:
        ValueError: if the direction of view vanishes or is parallel to `up`.
    """
    eye = _vectors(eye, vertices)
    return _turn(vertices, eye, _vectors(at, vertices) - eye, _vectors(up, vertices))


def look(
    vertices: Tensor, eye: Vector, direction: Vector = (0, 0, 1), up: Vector | None = None
) -> Tensor:
    """Like `look_at`, for a camera at `eye` that looks in `direction`; `up` is y by default."""
    up = (0, 1, 0) if up is None else up
    return _turn(vertices, *(_vectors(x, vertices) for x in (eye, direction, up)))


def perspective(vertices: Tensor, angle: float = 30.0) -> Tensor:
    """Screen positions x/z/tan(angle), y/z/tan(angle) of vertices [B, V, 3], and their z.

    Args:
        vertices: [B, V, 3] in the camera's space.
        angle: half the field of view, in degrees.
    """
    x, y, z = vertices.unbind(-1)
    z = _without_zero(z)
    width = math.tan(math.radians(angle))
    return torch.stack((x / z / width, y / z / width, z), -1)


def projection(
    vertices: Tensor,
    K: Array,
    R: Array,
    t: Array,
    dist_coeffs: Array | None,
    orig_size: float,
) -> Tensor:
    """Screen positions of vertices [B, V, 3] in a calibrated camera, and their z.

    Points go through R and t, then radial and tangential distortion, then K to pixels (u, v) of an
    image `orig_size` wide and high with v running down, and from there to [-1, 1] with y up.

    Args:
        vertices: [B, V, 3].
        K: [B or 1, 3, 3] intrinsics.
        R: [B or 1, 3, 3] rotation.
        t: [B or 1, 1, 3] translation; [B or 1, 3] and [3] mean the same.
        dist_coeffs: [B or 1, 5] k1, k2, p1, p2, k3 (as in OpenCV), None for no distortion.
        orig_size: width and height of the image in pixels.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    intrinsics, rotation, shift = (torch.as_tensor(m).to(vertices) for m in (K, R, t))
    if shift.ndim < 3 and shift.shape[-1:] == (3,):
        shift = shift.reshape(-1, 1, 3)
    batch = len(vertices)
    for name, matrix, shape in (
        ("K", intrinsics, (3, 3)),
        ("R", rotation, (3, 3)),
        ("t", shift, (1, 3)),
    ):
        if matrix.ndim != 3 or matrix.shape[1:] != shape or len(matrix) not in (1, batch):
            raise ValueError(
                f"{name} must be [{batch} or 1, {shape[0]}, {shape[1]}], not {list(matrix.shape)}"
            )
    x, y, z = (vertices @ rotation.mT + shift).unbind(-1)
    z = _without_zero(z)
    x, y = x / z, y / z
    if dist_coeffs is not None:
        x, y = _distort(x, y, torch.as_tensor(dist_coeffs).to(vertices))
    u, v, _ = (torch.stack((x, y, torch.ones_like(x)), -1) @ intrinsics.mT).unbind(-1)
    v = orig_size - v
    return torch.stack((2 * u / orig_size - 1, 2 * v / orig_size - 1, z), -1)


def get_points_from_angles(
    distance: Any, elevation: Any, azimuth: Any, degrees: bool = True
) -> Any:
    """The point d (cos e sin a, sin e, -cos e cos a).

    Args:
        distance: d, a number, or a tensor [...] as the angles then are too.
        elevation: e.
        azimuth: a.
        degrees: whether the angles are in degrees; else they are in radians.

    Returns:
        For numbers a tuple of three; for tensors a tensor [..., 3].
    """
    if isinstance(distance, Tensor):
        if degrees:
            elevation, azimuth = torch.deg2rad(elevation), torch.deg2rad(azimuth)
        ground = distance * elevation.cos()
        return torch.stack(
            (ground * azimuth.sin(), distance * elevation.sin(), -ground * azimuth.cos()), -1
        )
    if degrees:
        elevation, azimuth = math.radians(elevation), math.radians(azimuth)
    ground = distance * math.cos(elevation)
    return ground * math.sin(azimuth), distance * math.sin(elevation), -ground * math.cos(azimuth)


def _turn(vertices: Tensor, eye: Tensor, forward: Tensor, up: Tensor) -> Tensor:
    forward, up = torch.broadcast_tensors(F.normalize(forward, dim=-1), F.normalize(up, dim=-1))
    right = torch.linalg.cross(up, forward)
    if not is_traced(right) and bool((right.detach().norm(dim=-1) < 1e-6).any()):
        raise ValueError("the camera must not look along `up`, nor at its own position")
    right = F.normalize(right, dim=-1)
    rotation = torch.stack((right, torch.linalg.cross(forward, right), forward), -2)
    return (vertices - eye[:, None]) @ rotation.mT


def _vectors(value: Vector, vertices: Tensor) -> Tensor:
    """`value` as [B or 1, 3], of the type and on the device of vertices."""
    vector = torch.as_tensor(value).to(vertices)
    if vector.shape not in ((3,), (1, 3), (len(vertices), 3)):
        raise ValueError(f"need a vector [3] or [{len(vertices)}, 3], not {list(vector.shape)}")
    return vector.reshape(-1, 3)


def _without_zero(z: Tensor) -> Tensor:
    """z, with what lies in the camera's own plane moved a hair in front of it."""
    return torch.where(z.abs() < _SMALLEST_Z, _SMALLEST_Z, z)


def _distort(x: Tensor, y: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    if coefficients.ndim != 2 or coefficients.shape[1] != 5:
        raise ValueError(
            f"dist_coeffs must be [batch, 5] (k1, k2, p1, p2, k3), not {list(coefficients.shape)}"
        )
    k1, k2, p1, p2, k3 = coefficients[:, :, None].unbind(1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )
