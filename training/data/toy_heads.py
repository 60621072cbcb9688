"""Procedural heads, to be photographed from known cameras: models, and a ray tracer for them.

A head is a set of ellipsoids, symmetric in x, with y up and the face toward +z. The light is fixed
in the world, in the plane x = 0, so that the mirror image of a photograph is one too. Rays meet
ellipsoids in closed form, so an image takes milliseconds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.cameras import (
    cam2world_from_pose,
    focal_from_fov,
    intrinsics_from_focal,
    rays_from_cameras,
)

RADIUS = 2.7
PIVOT = (0.0, 0.0, 0.0)
FOV_DEGREES = 18.837
BACKGROUND_DEPTH = 3.3  # where no ray hits: the far plane of the published face presets

POSE_MEAN = (math.pi / 2, math.pi / 2)  # (h, v), radians
POSE_STD = (0.4, 0.35)
POSE_LIMIT = (1.2, 0.8)  # largest distance from the mean

VERSION = 1  # of the pictures: raise it when they change, so that no stale set is found in a cache

_LIGHT = (0.0, 0.5, 0.866)  # unit vector from the head toward the light
_AMBIENT = 0.6
_SKINS = ((0.44, 0.29, 0.21), (0.60, 0.41, 0.30), (0.74, 0.53, 0.40), (0.87, 0.67, 0.54))
_HAIRS = (
    (0.11, 0.09, 0.09),
    (0.33, 0.19, 0.10),
    (0.72, 0.55, 0.22),
    (0.62, 0.24, 0.10),
    (0.45, 0.45, 0.47),
)
_IRISES = ((0.08, 0.20, 0.42), (0.10, 0.29, 0.15), (0.22, 0.12, 0.07))
_LIFT = (0.0, -0.015, 0.0)  # centers head, hair and neck in the frame


Triple = Sequence[float] | np.ndarray


class Head(NamedTuple):
    """K ellipsoids whose axes are the world's. All [K, 3]; colors are RGB in [0, 1]."""

    centers: Tensor
    radii: Tensor
    colors: Tensor

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Head":
        """A random identity: sizes, proportions and colors."""
        skin, hair, iris = (_tint(rng, palette) for palette in (_SKINS, _HAIRS, _IRISES))
        skull = np.array([_vary(rng, 0.185), _vary(rng, 0.215, 0.06), _vary(rng, 0.2, 0.06)])
        parts = [
            *_skull_parts(rng, skull, skin),
            *_hair_parts(rng, skull, hair),
            *_eye_parts(rng, skull, iris, brow=hair * 0.7),
            *_nose_and_mouth(rng, skull, skin),
        ]
        centers, radii, colors = (
            torch.from_numpy(np.array(column, dtype=np.float64))
            for column in zip(*parts, strict=True)
        )
        scale = rng.uniform(0.97, 1.07)
        return cls(scale * centers + centers.new_tensor(_LIFT), scale * radii, colors)


class _Ellipsoid(NamedTuple):
    center: tuple[float, float, float]
    radii: Triple
    color: Triple


def _pair(ellipsoid: _Ellipsoid) -> list[_Ellipsoid]:
    """One on the left and its mirror image on the right."""
    x, y, z = ellipsoid.center
    return [ellipsoid, ellipsoid._replace(center=(-x, y, z))]


def _vary(rng: np.random.Generator, value: float, relative: float = 0.1) -> float:
    return value * rng.uniform(1 - relative, 1 + relative)


def _tint(rng: np.random.Generator, palette: Sequence) -> np.ndarray:
    """A color near one of the palette's, never so light that it could pass for background."""
    color = np.array(palette[int(rng.integers(len(palette)))])
    return (color * rng.uniform(0.88, 1.08) + rng.normal(0, 0.012, 3)).clip(0.04, 0.9)


def _skull_parts(rng: np.random.Generator, skull: np.ndarray, skin: np.ndarray) -> list[_Ellipsoid]:
    ear = _vary(rng, 0.056, 0.2)
    neck_radii = (_vary(rng, 0.085), 0.085, _vary(rng, 0.085))
    return [
        _Ellipsoid((0, 0, 0), skull, skin),
        _Ellipsoid((0, -0.92 * skull[1], -0.03), neck_radii, skin * 0.92),
        *_pair(_Ellipsoid((1.1 * skull[0], -0.01, 0.01), (0.03, ear, 0.65 * ear), skin * 0.95)),
    ]


def _hair_parts(rng: np.random.Generator, skull: np.ndarray, hair: np.ndarray) -> list[_Ellipsoid]:
    """A cap, through which the face looks out, and a tail from a bare neck down to a hidden one."""
    volume, length = rng.uniform(1.07, 1.16), rng.uniform(0.0, 0.1)
    cap_center = (0, _vary(rng, 0.045, 0.2), -_vary(rng, 0.065, 0.2))
    tail_radii = (0.95 * volume * skull[0], 0.17, 0.6 * skull[2])
    return [
        _Ellipsoid(cap_center, volume * skull, hair),
        _Ellipsoid((0, -length, -0.62 * skull[2]), tail_radii, hair * 0.95),
    ]


def _eye_parts(
    rng: np.random.Generator, skull: np.ndarray, iris: np.ndarray, brow: np.ndarray
) -> list[_Ellipsoid]:
    x, y, size = _vary(rng, 0.078), _vary(rng, 0.02, 0.5), _vary(rng, 0.043, 0.12)
    z, brow_y = _front(skull, x, y), y + size + 0.02
    white = (0.9, 0.9, 0.9)
    return [
        *_pair(_Ellipsoid((x, y, z - 0.004), (size, 0.72 * size, 0.022), white)),
        *_pair(_Ellipsoid((x, y, z + 0.008), (0.6 * size, 0.6 * size, 0.014), iris)),
        *_pair(
            _Ellipsoid((x, brow_y, _front(skull, x, brow_y)), (1.15 * size, 0.011, 0.014), brow)
        ),
    ]


def _nose_and_mouth(
    rng: np.random.Generator, skull: np.ndarray, skin: np.ndarray
) -> list[_Ellipsoid]:
    nose_y, mouth_y = -0.04, _vary(rng, -0.118, 0.08)
    nose = _vary(rng, 0.046, 0.2)
    nose_radii = (0.6 * nose, nose, _vary(rng, 0.055, 0.2))
    mouth_radii = (_vary(rng, 0.062, 0.2), _vary(rng, 0.02, 0.25), 0.024)
    lips = skin * (0.85, 0.35, 0.40) + (0.12, 0.0, 0.02)
    return [
        _Ellipsoid(
            (0, nose_y, _front(skull, 0, nose_y) + 0.015), nose_radii, skin * (1, 0.86, 0.84)
        ),
        _Ellipsoid((0, mouth_y, _front(skull, 0, mouth_y) - 0.004), mouth_radii, lips),
    ]


def _front(skull: np.ndarray, x: float, y: float) -> float:
    """Z of the skull's front surface at (x, y)."""
    return skull[2] * math.sqrt(1 - (x / skull[0]) ** 2 - (y / skull[1]) ** 2)


class Render(NamedTuple):
    """A head from V cameras.

    image: uint8 [V, 3, R, R]. depth: float32 [V, R, R], Euclidean distance from the camera along
    the pixel's ray (BACKGROUND_DEPTH where nothing is hit). mask: bool [V, R, R], foreground.
    """

    image: Tensor
    depth: Tensor
    mask: Tensor


def toy_cameras(pose: Tensor) -> Tensor:
    """cam2world [V, 4, 4] of the toy set's camera at poses [V, 2], (h, v) in radians."""
    return cam2world_from_pose(pose, RADIUS, PIVOT)


def toy_intrinsics() -> Tensor:
    """[3, 3] intrinsics of the toy set's camera, normalized by image size."""
    return intrinsics_from_focal(focal_from_fov(FOV_DEGREES))


def render_head(head: Head, cam2world: Tensor, resolution: int, supersample: int = 2) -> Render:
    """Photograph a head from V cameras with `supersample`^2 rays per pixel.

    cam2world: [V, 4, 4]. A pixel is foreground when at least half of its rays hit; its depth is the
    mean over those that do.
    """
    fine = resolution * supersample
    views = []
    for camera in cam2world.double():
        rays = rays_from_cameras(camera[None], toy_intrinsics(), fine)
        views.append(_trace(head, camera[:3, 3], rays.directions[0]))
    color, depth, hit = (torch.stack(parts) for parts in zip(*views, strict=True))

    def per_pixel(samples: Tensor) -> Tensor:
        grid = samples.reshape(len(cam2world), resolution, supersample, resolution, supersample, -1)
        return grid.mean(dim=(2, 4))

    coverage = per_pixel(hit.float())[..., 0]
    mask = coverage >= 0.5
    mean_depth = per_pixel(depth * hit)[..., 0] / coverage.clamp(min=1e-6)
    image = (per_pixel(color) * 255).round().to(torch.uint8).permute(0, 3, 1, 2)
    return Render(image, mean_depth.where(mask, BACKGROUND_DEPTH), mask)


def _trace(head: Head, origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Color [N, 3], distance [N] and hit [N] of the nearest ellipsoid along N rays from one point.

    With A = diag(1/radii^2) and e = origin - center, a ray d meets an ellipsoid where
    t^2 dAd + 2 t eAd + eAe - 1 = 0. A quarter of the discriminant is itself a quadratic form in d,
    d (Ae eA - (eAe - 1) A) d: one matrix product with the monomials of d serves all ellipsoids.
    """
    inverse = head.radii**-2
    offset = origin - head.centers
    a_offset = inverse * offset
    outside = (a_offset * offset).sum(-1) - 1
    form = a_offset[:, :, None] * a_offset[:, None, :] - torch.diag_embed(
        outside[:, None] * inverse
    )
    monomials = (directions[:, :, None] * directions[:, None, :]).flatten(1)
    discriminant = (monomials @ form.flatten(1).T).float()
    leading = (directions.square() @ inverse.T).float()
    linear = (directions @ a_offset.T).float()

    root = discriminant.clamp(min=0).sqrt()
    distance, nearest = ((-linear - root) / leading).where(discriminant > 0, math.inf).min(dim=-1)
    hit = distance.isfinite()
    distance = distance.where(hit, BACKGROUND_DEPTH)
    point = origin + distance[:, None] * directions
    gradient = (point - head.centers[nearest]) * inverse[nearest]
    normal = torch.nn.functional.normalize(gradient, dim=-1)
    lambert = (normal @ normal.new_tensor(_LIGHT)).clamp(min=0)
    shade = _AMBIENT + (1 - _AMBIENT) * lambert
    color = (head.colors[nearest] * shade[:, None]).where(hit[:, None], 1.0)
    return color.float(), distance, hit


def foreground_mask(images: Tensor) -> Tensor:
    """Silhouettes: bool [..., H, W] of uint8 images [..., 3, H, W], true where not white."""
    return (images < 250).any(dim=-3)


def sample_pose(rng: np.random.Generator) -> np.ndarray:
    """One pose [2], (h, v) in radians, from the toy set's clipped normal distribution."""
    limit = np.asarray(POSE_LIMIT)
    return POSE_MEAN + np.clip(rng.normal(0, POSE_STD), -limit, limit)


def turned_pose(pose: np.ndarray, yaw: float) -> np.ndarray:
    """A pose [2] turned by yaw degrees, from +z toward +x as `orbit` turns cameras."""
    return pose + (math.radians(yaw), 0.0)
