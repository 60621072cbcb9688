"""A photograph of a person: geometry in the world, light, and pixels."""

import functools
from typing import NamedTuple

import numpy as np

from training.data.toy_heads import BACKGROUND_DEPTH

from .anatomy import LEFT_EYE, RIGHT_EYE, Anatomy
from .geometry import (
    Seen,
    Shapes,
    Strands,
    rasterize,
    tangents,
    unit,
    vertex_normals,
)
from .hair import grow_hair
from .light import Points, irradiance, to_linear, to_srgb
from .person import Person, Shot
from .roots import Regions
from .skin import albedo, eye_color, gloss

SUPERSAMPLE = 3
SCALE = 0.202  # world units per decimeter
ORIGIN = np.array([0.0, 7.29, 0.55])  # of the world, in the model's coordinates
SIZE_KEPT = 0.3  # of differences in the faces' height, after cropping
HAIR_GLOSS = 0.35  # of hair's own linear color, besides a little white


class Portrait(NamedTuple):
    """image: float32 [R, R, 3], sRGB in [0, 1] times coverage; coverage: [R, R], the share of a
    pixel that is hit; depth: [R, R], mean distance along its rays of what is hit, or
    BACKGROUND_DEPTH where less than half is."""

    image: np.ndarray
    coverage: np.ndarray
    depth: np.ndarray


class Model(NamedTuple):
    """What all heads are made of: shapes, and where hair grows."""

    anatomy: Anatomy
    regions: Regions


class _Scene(NamedTuple):
    """A head in the world: vertices and normals float32 [V, 3], and its hair."""

    vertices: np.ndarray
    normals: np.ndarray
    hair: list[Strands]


class _Radiance(NamedTuple):
    """Linear RGB [N, 3] of points (vertices, then those of strands), and for eyes, whose pattern is
    finer than the mesh, the light that falls on them: [V, 3]."""

    leaving: np.ndarray
    falling: np.ndarray


def photograph(model: Model, person: Person, shot: Shot, resolution: int) -> Portrait:
    """One picture of a person, with nothing behind."""
    scene = _scene(model, person, shot.expression)
    shapes = Shapes(scene.vertices, model.anatomy.triangles, scene.hair)
    radiance = _radiance(model.anatomy, person, scene, shapes, shot)
    seen = rasterize(_on_screen(shapes, shot), resolution * SUPERSAMPLE, perspective=True)
    hit = seen.triangle >= 0
    colors = _colors_seen(model.anatomy, person, shapes, radiance, seen, shot)
    distance = _ray_lengths(len(hit), shot.intrinsics)[hit] * seen.depth[hit]
    return _develop(hit, to_srgb(colors), distance)


def _scene(model: Model, person: Person, expression: dict[str, float]) -> _Scene:
    anatomy = model.anatomy
    relaxed = anatomy.rest + anatomy.offsets(person.weights)
    vertices = _aligned(anatomy, relaxed, relaxed + anatomy.offsets(expression))
    normals = vertex_normals(vertices, anatomy.triangles)
    hair = [
        strands._replace(points=_in_world(strands.points), widths=strands.widths * SCALE)
        for strands in grow_hair(person.hair, anatomy, model.regions, vertices, normals)
    ]
    return _Scene(_in_world(vertices), normals, hair)


def _aligned(anatomy: Anatomy, relaxed: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Vertices [V, 3] moved and scaled as sets of portraits are cropped: eyes where they are at
    rest, faces of much the same size."""
    middle, height = _face(anatomy, relaxed)
    middle_at_rest, height_at_rest = _face(anatomy, anatomy.rest)
    scale = (height / height_at_rest) ** (SIZE_KEPT - 1)
    return ((vertices - middle) * scale + middle_at_rest).astype(np.float32)


def _face(anatomy: Anatomy, vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """The point between the eyes, and its height above the lips."""
    eyes = [vertices[anatomy.part == part].mean(axis=0) for part in (LEFT_EYE, RIGHT_EYE)]
    middle = np.mean(eyes, axis=0)
    lips = vertices[anatomy.masks["lips"] > 0.5].mean(axis=0)
    return middle, float(middle[1] - lips[1])


def _in_world(points: np.ndarray) -> np.ndarray:
    return ((points - ORIGIN) * SCALE).astype(np.float32)


def _radiance(
    anatomy: Anatomy, person: Person, scene: _Scene, shapes: Shapes, shot: Shot
) -> _Radiance:
    groups = [Points(scene.vertices, scene.normals, None, gloss(anatomy, person))]
    colors = [albedo(anatomy, person)]
    for strands in scene.hair:
        colors.append(to_linear(strands.color).reshape(-1, 3))
        groups.append(_hair_points(strands, 0.012 + HAIR_GLOSS * colors[-1].mean(axis=1)))
    coarse = shapes._replace(triangles=anatomy.coarse).thinned(6)
    lit = irradiance(groups, shapes, coarse, shot.light, shot.cam2world[:3, 3])
    leaving = [
        color * diffuse + highlight for color, (diffuse, highlight) in zip(colors, lit, strict=True)
    ]
    return _Radiance(np.concatenate(leaving), lit[0][0])


def _hair_points(strands: Strands, shine: np.ndarray) -> Points:
    """Hair is lit as a mass that is round as the head is, and shines along its strands."""
    points = strands.points.reshape(-1, 3)
    outward = unit(points - np.array([0.0, 0.02, -0.01], np.float32))
    return Points(points, outward, tangents(strands.points).reshape(-1, 3), shine)


def _on_screen(shapes: Shapes, shot: Shot) -> np.ndarray:
    """Corners [F, 3, (x, y, z)] of all triangles, x and y in [-1, 1], right and up."""
    position, axes = (shot.cam2world[:3, i].astype(np.float32) for i in (3, slice(3)))
    points, triangles = shapes.drawn([strands.points - position for strands in shapes.hair])
    x, y, z = ((points - position) @ axes).T
    k = shot.intrinsics
    column, row = k[0, 0] * x / z + k[0, 2], k[1, 1] * y / z + k[1, 2]
    screen = np.stack([2 * column - 1, 1 - 2 * row, z], -1).astype(np.float32)
    return np.take(screen, triangles, axis=0)


def _colors_seen(
    anatomy: Anatomy,
    person: Person,
    shapes: Shapes,
    radiance: _Radiance,
    seen: Seen,
    shot: Shot,
) -> np.ndarray:
    """Linear RGB [P, 3] of the samples that hit something."""
    hit = seen.triangle >= 0
    corners = shapes.origins()[seen.triangle[hit]]
    weights = seen.weights[:, hit].T
    linear = _interpolated(radiance.leaving, corners, weights)
    on_eye = np.zeros(len(radiance.leaving), bool)
    on_eye[: len(anatomy.part)] = (anatomy.part == LEFT_EYE) | (anatomy.part == RIGHT_EYE)
    eye = np.flatnonzero(on_eye[corners[:, 0]])
    linear[eye] = eye_color(
        person,
        shot,
        _interpolated(anatomy.rest, corners[eye], weights[eye]),
        _interpolated(radiance.falling, corners[eye], weights[eye]),
    )
    return linear


def _develop(hit: np.ndarray, colors: np.ndarray, distance: np.ndarray) -> Portrait:
    """From samples, of which `hit` [S, S] tells those with colors [P, 3] and distances [P]."""
    fine = np.zeros((*hit.shape, 5), np.float32)
    fine[hit, :3] = colors
    fine[hit, 3] = 1
    fine[hit, 4] = distance
    pixels = _per_pixel(fine)
    coverage = pixels[..., 3]
    depth = pixels[..., 4] / coverage.clip(1e-6)
    return Portrait(pixels[..., :3], coverage, np.where(coverage >= 0.5, depth, BACKGROUND_DEPTH))


def _interpolated(values: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[P, C] at barycentric weights [P, 3] between points [P, 3] with values [N, C]."""
    total = np.take(values, corners[:, 0], axis=0) * weights[:, :1]
    for corner in (1, 2):
        total += np.take(values, corners[:, corner], axis=0) * weights[:, corner : corner + 1]
    return total


def _per_pixel(samples: np.ndarray) -> np.ndarray:
    """Means of SUPERSAMPLE^2 samples; by slices, as numpy's mean over two axes is slow."""
    steps = [(i, j) for i in range(SUPERSAMPLE) for j in range(SUPERSAMPLE)]
    parts = [samples[i::SUPERSAMPLE, j::SUPERSAMPLE] for i, j in steps]
    return functools.reduce(np.add, parts) / len(parts)


def _ray_lengths(size: int, intrinsics: np.ndarray) -> np.ndarray:
    """Distance [S, S] along each pixel's ray per unit of depth."""
    across = (np.arange(size) + 0.5) / size
    x = (across - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (across - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.sqrt(1 + x**2 + y[:, None] ** 2)
