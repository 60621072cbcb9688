"""Meshes, strands of hair, and what of them a pixel sees."""

import functools
from typing import NamedTuple

import numpy as np
import torch

from dnnlib import UserError
from neural_renderer.ops import View, select


class Seen(NamedTuple):
    """What pixels see. triangle: int32 [S, S], its number, -1 for none. weights: [3, S, S],
    barycentric. depth: [S, S], along the axis of sight."""

    triangle: np.ndarray
    weights: np.ndarray
    depth: np.ndarray


def check_rasterizer() -> None:
    """Build the rasterizer's kernels, before many processes try to.

    Raises UserError if the environment asks for what there is not.
    """
    try:
        select(None, torch.device("cpu"))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{error}; see NEURAL_RENDERER_OPS") from error


def rasterize(screen: np.ndarray, size: int, perspective: bool) -> Seen:
    """Triangles float32 [F, 3, (x, y, z)]; x and y, in [-1, 1], run right and up."""
    faces = torch.from_numpy(np.ascontiguousarray(screen, np.float32))[None]
    view = View(size, 0.1, 100.0, perspective)
    fragments = select(None, faces.device).rasterize(faces, view)
    return Seen(*(plane[0].numpy() for plane in fragments))


class Strands(NamedTuple):
    """S strands of hair of K points. points: float32 [S, K, 3]; widths: [S, K]; color: sRGB
    [S, K, 3]."""

    points: np.ndarray
    widths: np.ndarray
    color: np.ndarray


class Shapes(NamedTuple):
    """A closed mesh, vertices float32 [V, 3] and triangles [F, 3], and kinds of hair, drawn as
    ribbons that turn to whoever looks."""

    vertices: np.ndarray
    triangles: np.ndarray
    hair: list[Strands]

    def drawn(self, sight: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Points [N, 3] and triangles [F + E, 3] of the mesh and of ribbons.

        sight: for each kind of hair, lines of sight, [3] or [S, K, 3], that ribbons lie across.
        """
        points, triangles, first = [self.vertices], [self.triangles], len(self.vertices)
        for strands, along in zip(self.hair, sight, strict=True):
            points.append(_ribbon_edges(strands, along))
            triangles.append(_ribbon_triangles(*strands.widths.shape) + first)
            first += len(points[-1])
        return np.concatenate(points), np.concatenate(triangles)

    def origins(self) -> np.ndarray:
        """Which of V + S K + … points the corners of triangles [F + E, 3] stem from: a vertex, or a
        point of a strand."""
        triangles, first = [self.triangles], len(self.vertices)
        for strands in self.hair:
            triangles.append(_ribbon_triangles(*strands.widths.shape) // 2 + first)
            first += strands.widths.size
        return np.concatenate(triangles)

    def thinned(self, step: int) -> "Shapes":
        """Every step-th strand, that much wider and of half its points: the same shade for less
        work."""
        hair = [
            Strands(points[::step, ::2], widths[::step, ::2] * step, color[::step, ::2])
            for points, widths, color in self.hair
        ]
        return self._replace(hair=hair)


def _ribbon_edges(strands: Strands, sight: np.ndarray) -> np.ndarray:
    """Points [S K 2, 3]: left and right of each point of strands, as seen along `sight`."""
    side = cross(tangents(strands.points), sight)
    half = strands.widths[..., None] / 2
    side *= half / length(side).clip(1e-9)
    return np.stack([strands.points + side, strands.points - side], axis=2).reshape(-1, 3)


@functools.lru_cache(maxsize=32)
def _ribbon_triangles(strands: int, points: int) -> np.ndarray:
    """Corners [2 S (K - 1), 3] among the points of `_ribbon_edges`."""
    first = 2 * np.arange(strands * points).reshape(strands, points)[:, :-1].ravel()
    left, right, left_next, right_next = (first + i for i in range(4))
    both = np.stack([left, right, left_next, right, right_next, left_next], axis=1)
    return both.reshape(-1, 3)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product over the last axis; several times as fast as numpy's for small arrays."""
    (ax, ay, az), (bx, by, bz) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., 3] scaled to length 1; zero stays zero."""
    return vectors / length(vectors).clip(1e-9)


def length(vectors: np.ndarray) -> np.ndarray:
    """[..., 1] of vectors [..., 3]."""
    return np.sqrt(np.einsum("...c,...c->...", vectors, vectors))[..., None]


def tangents(points: np.ndarray) -> np.ndarray:
    """Unit vectors [S, K, 3] along strands of points [S, K, 3]."""
    step = np.diff(points, axis=1)
    along = np.concatenate([step[:, :1], (step[:, 1:] + step[:, :-1]) / 2, step[:, -1:]], axis=1)
    return unit(along)


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit vectors [V, 3]: the mean of adjoining triangles, weighted by their areas."""
    a, b, c = vertices[triangles].swapaxes(0, 1)
    normal = cross(b - a, c - a)
    corners = triangles.T.ravel()
    total = [
        np.bincount(corners, np.tile(component, 3), minlength=len(vertices))
        for component in normal.T
    ]
    return unit(np.stack(total, -1)).astype(np.float32)
