"""Light: a lamp that casts shadows, a dome of sky that is shaded by the head itself.

Everything is computed at vertices and interpolated, since triangles are about as large as pixels.
Colors are linear here; `to_srgb` turns them into those of pictures.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .geometry import Shapes, rasterize, unit

EXTENT = 0.62  # world units from the middle to the edge of shadow maps; holds head and shoulders
DOME_DIRECTIONS, DOME_SIZE, LAMP_SIZE = 10, 64, 200
_OFFSET = 2.0  # keeps the depths of shadow maps positive
BIAS = 0.012  # world units by which a point may lie behind the shadow map and still be lit
SOFTNESS = {"skin": 0.012, "hair": 0.05}  # over this depth, light fades
SCATTER = np.array([0.35, 0.16, 0.10], np.float32)  # skin: how far light wraps round, per channel
GAMMA = 2.2
BRIGHTEST = 0.965  # so that nothing passes for a white background


class Light(NamedTuple):
    """direction: [3], unit vector toward the lamp. lamp, sky, ground: linear RGB [3]."""

    direction: np.ndarray
    lamp: np.ndarray
    sky: np.ndarray
    ground: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, spread: float = 1.0) -> "Light":
        """A lamp in front, from any side and mostly from above; a dome that fills the shadows."""
        side, height = rng.normal(0, 0.65 * spread), rng.normal(0.5, 0.3 * spread)
        side, height = np.clip([side, height], [-1.3, -0.25], [1.3, 1.2])
        direction = np.array([
            math.sin(side) * math.cos(height), math.sin(height), math.cos(side) * math.cos(height)
        ])  # fmt: skip
        share = rng.uniform(0.35, 0.7)  # of the lamp in the light that comes from the front
        warmth = np.array([1.0, 0.0, -1.0]) * rng.normal(0, 0.05)
        power = rng.uniform(0.95, 1.25)
        lamp = 1.25 * power * share * (1 + warmth)
        sky = 1.25 * power * (1 - share) * (1 - warmth + rng.normal(0, 0.02, 3))
        return cls(direction, lamp, sky, sky * rng.uniform(0.35, 0.7) * (1.05, 1.0, 0.95))


class Points(NamedTuple):
    """What is lit. positions, normals: float32 [N, 3]; tangents: of hair, None for skin.

    gloss: strength of highlights, [N].
    """

    positions: np.ndarray
    normals: np.ndarray
    tangents: np.ndarray | None
    gloss: np.ndarray


class ShadowMap(NamedTuple):
    """Depths [S, S] along parallel rays that run against `axes[2]`.

    axes: [3, 3], rows right, down and away from the lamp.
    """

    depth: np.ndarray
    axes: np.ndarray

    def visible(self, positions: np.ndarray, softness: float) -> np.ndarray:
        """Share [N] in [0, 1] of the light that reaches points [N, 3].

        softness: world units of depth over which light fades behind what it meets first.
        """
        x, y, z = self.axes.astype(np.float32) @ positions.T
        size = len(self.depth)
        scale, middle = size / (2 * EXTENT), (size - 1) / 2
        column = (x * scale + middle).clip(0, size - 1.001)
        row = (y * scale + middle).clip(0, size - 1.001)
        left, top = column.astype(np.int32), row.astype(np.int32)
        across, down = column - left, row - top
        behind = z + (_OFFSET - BIAS)
        corner = top * size + left
        shares = [
            (1 - (behind - self.depth.ravel()[corner + step]) / softness).clip(0, 1)
            for step in (0, 1, size, size + 1)
        ]
        upper = shares[0] + across * (shares[1] - shares[0])
        lower = shares[2] + across * (shares[3] - shares[2])
        return upper + down * (lower - upper)


def shadow_map(shapes: Shapes, direction: np.ndarray, size: int) -> ShadowMap:
    """What light from `direction` meets first."""
    up = (0.0, 1.0, 0.0) if abs(direction[1]) < 0.95 else (0.0, 0.0, 1.0)
    away = unit(-direction)
    right = unit(np.cross(away, up))
    axes = np.stack([right, np.cross(away, right), away])
    points, triangles = shapes.drawn([away.astype(np.float32)] * len(shapes.hair))
    scale = np.array([1 / EXTENT, -1 / EXTENT, 1])
    screen = points @ (axes.T * scale).astype(np.float32) + np.array([0, 0, _OFFSET], np.float32)
    return ShadowMap(
        rasterize(np.take(screen, triangles, axis=0), size, perspective=False).depth, axes
    )


def irradiance(
    points: list[Points], shapes: Shapes, coarse: Shapes, light: Light, camera: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Light that surfaces scatter ([N, 3], to be multiplied by their color) and mirror ([N, 3]).

    coarse: shapes that shade the dome. camera: where highlights are seen from, [3].
    """
    dome = [(d, shadow_map(coarse, d, DOME_SIZE)) for d in _dome()]
    lamp = shadow_map(shapes, light.direction, LAMP_SIZE)
    return [_light_up(group, dome, lamp, light, camera) for group in points]


def _light_up(
    points: Points,
    dome: list[tuple[np.ndarray, ShadowMap]],
    lamp: ShadowMap,
    light: Light,
    camera: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    softness = SOFTNESS["skin" if points.tangents is None else "hair"]
    ambient = np.zeros_like(points.positions)
    for direction, shadows in dome:
        toward = (points.normals @ direction.astype(np.float32) * 0.85 + 0.15).clip(0)
        toward *= shadows.visible(points.positions, 2.5 * softness)
        height = (direction[1] + 1) / 2
        color = light.ground * (1 - height) + light.sky * height
        ambient += toward[:, None] * (color * (3.4 / len(dome))).astype(np.float32)
    visible = lamp.visible(points.positions, softness)[:, None]
    shine = _skin if points.tangents is None else _hair
    diffuse, highlight = shine(points, light.direction.astype(np.float32), camera)
    power = visible * light.lamp.astype(np.float32)
    return ambient + diffuse * power, (highlight * points.gloss)[:, None] * power


def _skin(
    points: Points, direction: np.ndarray, camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lambert's law, wrapped round farther in red, as light scatters in skin; Blinn's highlight."""
    cosine = points.normals @ direction
    diffuse = ((cosine[:, None] + SCATTER) / (1 + SCATTER)).clip(0)
    view = unit(camera.astype(np.float32) - points.positions)
    half = unit(view + direction)
    mirrored = np.einsum("nc,nc->n", points.normals, half).clip(0) ** 24
    grazing = (1 - np.einsum("nc,nc->n", points.normals, view).clip(0, 1)) ** 4
    return diffuse, (mirrored + 0.8 * grazing * cosine.clip(0)) * (cosine > 0)


def _hair(
    points: Points, direction: np.ndarray, camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kajiya and Kay, "Rendering fur with three dimensional textures" (1989), with a share of
    Lambert's law for the mass of hair."""
    assert points.tangents is not None
    along = points.tangents @ direction
    around = np.sqrt((1 - along**2).clip(0))
    cosine = (points.normals @ direction * 0.75 + 0.25).clip(0)
    view = unit(camera.astype(np.float32) - points.positions)
    seen = np.einsum("nc,nc->n", points.tangents, view)
    mirrored = (around * np.sqrt((1 - seen**2).clip(0)) - along * seen).clip(0, 1) ** 30
    return (around * cosine)[:, None], mirrored * cosine


@functools.cache
def _dome() -> np.ndarray:
    """Unit vectors [D, 3], evenly spread over all but the lowest part of the sphere."""
    number = np.arange(DOME_DIRECTIONS)
    height = 1 - (number + 0.5) * (1.75 / DOME_DIRECTIONS)
    turn = number * math.pi * (3 - math.sqrt(5)) + 0.4
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.sin(turn), height, radius * np.cos(turn)], -1)


def to_linear(color: ArrayLike) -> np.ndarray:
    """Linear RGB of sRGB in [0, 1]; GAMMA stands for the exact curve."""
    return np.asarray(color, np.float32) ** GAMMA


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Pictures' colors in [0, BRIGHTEST]; what is too bright fades out softly."""
    knee = 0.6
    over = (linear - knee).clip(0)
    compressed = linear.clip(0, knee) + (1 - knee) * (1 - np.exp(-over / (1 - knee)))
    return BRIGHTEST * compressed ** (1 / GAMMA)
