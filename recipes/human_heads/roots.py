"""Where hair, brows and beards grow.

Regions of skin are told in the model's coordinates at rest (decimeters), in which eyes lie at
y = 7.28, lips at 6.6, the chin at 6.15 and the crown at 8.5.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .anatomy import SKIN, Anatomy

# Height of the hairline, by the angle in degrees from the front round the head's axis.
HAIRLINE_ANGLE = (0, 30, 48, 62, 76, 84, 105, 116, 150, 180)
HAIRLINE_HEIGHT = (7.95, 7.95, 7.88, 7.60, 7.18, 7.36, 7.4, 7.02, 6.72, 6.68)
AXIS_Z = 0.55
CROWN = np.array([0.0, 8.42, 0.1])

BROW_X = (0.11, 0.22, 0.41, 0.55)
BROW_Y = (7.54, 7.558, 7.58, 7.525)
BROW_HALF_WIDTH = (0.024, 0.031, 0.024, 0.009)

CHEEK_X = (0.0, 0.22, 0.30, 0.50, 0.66, 0.76)  # a beard grows below this line
CHEEK_Y = (6.83, 6.83, 6.68, 6.70, 6.86, 7.25)

SCALP_ROOTS, BROW_ROOTS, BEARD_ROOTS, GUIDES = 4200, 600, 2800, 220


class Roots(NamedTuple):
    """Where strands grow. triangle: [N]; weights: [N, 3], barycentric; rest: [N, 3].

    guide: [N], the root whose strand leads the lock that this one belongs to.
    """

    triangle: np.ndarray
    weights: np.ndarray
    rest: np.ndarray
    guide: np.ndarray

    def on(self, anatomy: Anatomy, values: np.ndarray) -> np.ndarray:
        """Values [V, 3] of vertices at the roots: [N, 3]."""
        corners = values[anatomy.triangles[self.triangle]]
        return np.einsum("nv,nvc->nc", self.weights, corners)

    def subset(self, keep: np.ndarray) -> "Roots":
        """Those roots alone; the first that is left of a lock leads it."""
        _, first, lock = np.unique(self.guide[keep], return_index=True, return_inverse=True)
        return Roots(self.triangle[keep], self.weights[keep], self.rest[keep], first[lock])


class Regions(NamedTuple):
    """Roots of a model's scalp, brows and beard, the same for all people."""

    scalp: Roots
    brows: Roots
    beard: Roots


def hairline(rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height [N] above the hairline, and angle [N] in degrees from the front, of points [N, 3]."""
    angle = np.degrees(np.arctan2(np.abs(rest[:, 0]), rest[:, 2] - AXIS_Z))
    return rest[:, 1] - np.interp(angle, HAIRLINE_ANGLE, HAIRLINE_HEIGHT), angle


def brow_cover(rest: np.ndarray) -> np.ndarray:
    """How far inside a brow points [N, 3] lie, from 1 in its middle to 0 at its edge and below."""
    x = np.abs(rest[:, 0])
    off = np.abs(rest[:, 1] - np.interp(x, BROW_X, BROW_Y)) / np.interp(x, BROW_X, BROW_HALF_WIDTH)
    inside = (x > BROW_X[0]) & (x < BROW_X[-1]) & (rest[:, 2] > 0.9)
    return np.where(inside, 1 - off, -1.0)


def beard_cover(rest: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """How far below the beard's upper line points [N, 3] lie, in decimeters; negative is bare."""
    x = np.abs(rest[:, 0])
    below = np.interp(x, CHEEK_X, CHEEK_Y) - rest[:, 1]
    throat = np.minimum(rest[:, 1] - 6.1, rest[:, 2] - 0.5)
    return np.where(lips > 0.15, -1.0, np.minimum(below, throat))


def find_regions(anatomy: Anatomy) -> Regions:
    """Random roots, with the same seed for every model and run."""
    rng = np.random.default_rng(20)
    skin = (anatomy.part[anatomy.triangles] == SKIN).all(axis=1)
    ears = anatomy.masks["ears"][anatomy.triangles].max(axis=1) > 0.3
    outside = anatomy.masks["inside-mouth"][anatomy.triangles].max(axis=1) < 0.3
    lips = anatomy.masks["lips"][:, None]

    def grow(count: int, where: np.ndarray, cover: Callable[[Roots], np.ndarray]) -> Roots:
        many = _sample(anatomy, rng, np.flatnonzero(where & skin & outside), 24 * count)
        kept = many.subset(np.flatnonzero(cover(many) > 0))
        return _with_guides(kept.subset(np.arange(min(count, len(kept.rest)))))

    centers = anatomy.rest[anatomy.triangles].mean(axis=1)
    return Regions(
        scalp=grow(SCALP_ROOTS, ~ears & (centers[:, 1] > 6.5), lambda r: hairline(r.rest)[0]),
        brows=grow(
            BROW_ROOTS,
            (np.abs(centers[:, 1] - 7.5) < 0.25) & (centers[:, 2] > 0.9),
            lambda r: brow_cover(r.rest),
        ),
        beard=grow(
            BEARD_ROOTS,
            ~ears & (centers[:, 1] < 7.3) & (centers[:, 1] > 6.0) & (centers[:, 2] > 0.4),
            lambda r: beard_cover(r.rest, r.on(anatomy, lips)[:, 0]),
        ),
    )


def _sample(anatomy: Anatomy, rng: np.random.Generator, triangles: np.ndarray, count: int) -> Roots:
    """Points spread evenly over the area of some triangles."""
    a, b, c = anatomy.rest[anatomy.triangles[triangles]].swapaxes(0, 1).astype(float)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(triangles), count, p=area / area.sum())
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    weights = np.stack([1 - u, u * (1 - v), u * v], 1)
    rest = np.einsum("nv,nvc->nc", weights, np.stack([a, b, c], 1)[chosen])
    return Roots(triangles[chosen], weights, rest, np.arange(count))


def _with_guides(roots: Roots) -> Roots:
    """The first roots lead, the others follow the nearest of them."""
    leaders = roots.rest[:GUIDES]
    distance = ((roots.rest[:, None] - leaders[None]) ** 2).sum(-1)
    return roots._replace(guide=distance.argmin(axis=1))
