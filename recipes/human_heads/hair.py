"""Hair, brows and beards: strands that grow from the skin, bend, fall, and are kept off the face.

Lengths are in decimeters. Heads are shaped, but have their eyes where the model has them at rest,
so heights such as that of the brows hold (see roots.py).
"""

from typing import NamedTuple

import numpy as np

from .anatomy import SKIN, Anatomy
from .geometry import Strands, length, unit
from .hairstyle import CRISP, STYLES, Hair, Style, scalp_cover
from .roots import BROW_X, CROWN, Regions, Roots, beard_cover, hairline


class Skull(NamedTuple):
    """What hair lies on: an ellipsoid, and how far the head stands out from it in each direction.

    center, radii: [3]. relief: [20], coefficients of the cubic in unit directions that gives
    distances from the center, in radii. Its values lie between `lowest` and `highest`.
    """

    center: np.ndarray
    radii: np.ndarray
    relief: np.ndarray
    lowest: float
    highest: float

    @classmethod
    def around(cls, scalp: np.ndarray, head: np.ndarray) -> "Skull":
        """For scalp [N, 3] and the vertices of the upper head, face included, [M, 3]."""
        low, high = scalp.min(axis=0), scalp.max(axis=0)
        center = np.array([(low[0] + high[0]) / 2, high[1] - 0.9, (low[2] + high[2]) / 2])
        radii = np.array([(high[0] - low[0]) / 2, 0.88, (high[2] - low[2]) / 2])
        away = (head - center) / radii
        distance = length(away)
        relief = np.linalg.lstsq(_monomials(away / distance), distance[:, 0], rcond=None)[0]
        return cls(center, radii, relief, *np.quantile(distance, (0.02, 0.98)))

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Unit vectors away from the ellipsoid; below its middle they stay level."""
        away = (points - self.center) / self.radii**2
        away[..., 1] = np.maximum(away[..., 1], 0)
        return unit(away)

    def kept_near(self, points: np.ndarray, layer: np.ndarray, hold: float) -> np.ndarray:
        """Points [N, 3], moved out where they lie less than `layer` [N] above the head, and, in the
        upper half, moved in by the share `hold` of what they lie higher."""
        away = points - self.center
        distance = length(away / self.radii)
        surface = (_monomials(away / self.radii / distance.clip(1e-6)) @ self.relief)[:, None]
        least = surface.clip(self.lowest, self.highest) + layer[:, None] / self.radii.mean()
        above = np.where(away[:, 1:2] > 0, hold, 0.0)
        wanted = np.where(distance < least, least, distance + above * (least - distance))
        return self.center + away * wanted / distance.clip(1e-6)


def _monomials(direction: np.ndarray) -> np.ndarray:
    """[N, 20]: all products of up to three coordinates of directions [N, 3]."""
    x, y, z = direction.T
    one = np.ones_like(x)
    square = [x * x, y * y, z * z, x * y, y * z, z * x]
    cubic = [x * s for s in square] + [y * y * y, z * z * z, y * y * z, y * z * z]
    return np.stack([one, x, y, z, *square, *cubic], 1)


class _Head(NamedTuple):
    """A shaped head: vertices [V, 3] in decimeters, and their normals."""

    anatomy: Anatomy
    vertices: np.ndarray
    normals: np.ndarray

    def at(self, roots: Roots) -> tuple[np.ndarray, np.ndarray]:
        """Places and normals of the skin at roots, both [N, 3]."""
        return roots.on(self.anatomy, self.vertices), roots.on(self.anatomy, self.normals)

    def upper(self) -> np.ndarray:
        """The vertices [M, 3] of its upper half, without ears."""
        skin = (self.anatomy.part == SKIN) & (self.anatomy.masks["ears"] < 0.1)
        return self.vertices[skin & (self.anatomy.rest[:, 1] > 7.2)]


def grow_hair(
    hair: Hair, anatomy: Anatomy, regions: Regions, vertices: np.ndarray, normals: np.ndarray
) -> list[Strands]:
    """Brows, and beard and hair if any, of a head whose vertices [V, 3], in decimeters and with the
    eyes where they are at rest, and whose normals [V, 3] are given."""
    rng = np.random.default_rng(hair.seed)
    head = _Head(anatomy, vertices, normals)
    grown = [_brows(hair, head, regions.brows, rng)]
    if hair.beard > 0.3 and hair.beard_kind != "stubble":
        grown.append(_beard(hair, head, regions.beard, rng))
    if hair.style != "bald":
        grown += _scalp(hair, head, regions.scalp, rng)
    return grown


def _strands(
    points: np.ndarray, width: float, color: np.ndarray, rng: np.random.Generator
) -> Strands:
    """Strands along points [S, K, 3] that differ in lightness, are darker at the root and thinner
    at the tip."""
    count, steps = points.shape[:2]
    along = np.linspace(0, 1, steps)
    widths = np.tile(width * np.interp(along, (0, 0.65, 1), (1, 1, 0.3)), (count, 1))
    own = color * (1 + rng.normal(0, 0.16, (count, 1))).clip(0.5, 1.6)
    colors = (own[:, None] * (0.85 + 0.27 * along[:, None])).clip(0.02, 0.95)
    return Strands(*(values.astype(np.float32) for values in (points, widths, colors)))


def _straight(start: np.ndarray, along: np.ndarray) -> np.ndarray:
    """[S, 3, 3]: three points each from `start` [S, 3] as far as `along` [S, 3]."""
    return start[:, None] + np.linspace(0, 1, 3)[:, None] * along[:, None]


def _brows(hair: Hair, head: _Head, roots: Roots, rng: np.random.Generator) -> Strands:
    keep = rng.random(len(roots.rest)) < hair.brow_density
    roots = roots.subset(np.flatnonzero(keep))
    start, out = head.at(roots)
    x = np.abs(roots.rest[:, 0])
    rise = np.interp(x, BROW_X, (0.6, 0.25, 0.0, -0.5))
    along = np.stack([np.sign(roots.rest[:, 0]), rise, 0 * x], 1)
    along = unit(along - (along * out).sum(1, keepdims=True) * out)
    points = _straight(start + 0.020 * out, along * rng.uniform(0.04, 0.08, (len(x), 1)))
    return _strands(points, 0.013, hair.brow_color, rng)


def _beard(hair: Hair, head: _Head, roots: Roots, rng: np.random.Generator) -> Strands:
    x, y = np.abs(roots.rest[:, 0]), roots.rest[:, 1]
    mustache = (y > 6.68) & (x < 0.3)
    chin = (x < 0.3) & (y < 6.72)
    grows = {"full": x < 9, "goatee": mustache | chin, "mustache": mustache}[hair.beard_kind]
    soft = beard_cover(roots.rest, 0 * x) > rng.exponential(0.03, len(x))
    keep = grows & soft & (rng.random(len(x)) < 0.35 + 0.65 * hair.beard)
    roots = roots.subset(np.flatnonzero(keep))
    start, out = head.at(roots)
    side = np.sign(roots.rest[:, 0]) * np.where(roots.rest[:, 1] > 6.68, 0.7, 0.1)
    down = np.stack([side, -np.ones(len(side)), 0 * side], 1)
    direction = unit(0.3 * out + down + rng.normal(0, 0.2, out.shape))
    reach = rng.uniform(0.035, 0.065, (len(side), 1)) * (0.5 + 1.1 * hair.beard)
    return _strands(_straight(start + 0.01 * out, direction * reach), 0.018, 0.85 * hair.color, rng)


def _scalp(hair: Hair, head: _Head, roots: Roots, rng: np.random.Generator) -> list[Strands]:
    """Strands of the scalp, and what is made of them behind the tie."""
    style = STYLES[hair.style]
    cover = scalp_cover(hair, roots.rest)
    roots = roots.subset(np.flatnonzero(cover > rng.exponential(0.02, len(cover))))
    start, out = head.at(roots)
    skull = Skull.around(start, head.upper())
    share = hairline(roots.rest)[0].clip(0, 1) ** 0.8  # from side to top
    reach = (style.side + (style.top - style.side) * share) * hair.scale
    reach = reach * rng.uniform(0.82, 1.0, len(start))
    layer = style.volume * (0.15 + 0.85 * rng.random(len(start)))
    tie = np.array([0.0, *hair.tie])
    if style.comb == "tie":
        points = _drawn_to(tie, start, skull, layer)
    else:
        points = _Growth(hair, style, skull).strands(start, out, roots.rest, reach, layer)
    whole = _whole(points)
    points, roots = points[whole], roots.subset(np.flatnonzero(whole))
    points = _waved(_clumped(points, roots.guide, hair.clump, style), hair, style, rng)
    if style.lift >= CRISP:  # such strands may wander into the skin
        inner = points[:, 1:].reshape(-1, 3)
        outside = skull.kept_near(inner, np.full(len(inner), 0.02), hold=0)
        points[:, 1:] = outside.reshape(len(points), -1, 3)
    grown = [_strands(points, 0.020 if hair.style == "buzz" else 0.026, hair.color, rng)]
    if style.comb == "tie":
        grown.append(_tied(hair, tie, rng))
    return grown


def _drawn_to(tie: np.ndarray, start: np.ndarray, skull: Skull, layer: np.ndarray) -> np.ndarray:
    """[S, K, 3]: from roots [S, 3] straight over the skull to where hair is tied."""
    points = []
    for along in np.linspace(0, 1, 7):
        point = start + (tie - start) * along
        points.append(skull.kept_near(point, layer * (1 - along), hold=1 - along**4))
    return np.stack(points, 1)


class _Growth(NamedTuple):
    """Strands that grow step by step: combed, bent by their weight, kept off skull and face."""

    hair: Hair
    style: Style
    skull: Skull

    def strands(
        self,
        start: np.ndarray,
        out: np.ndarray,
        rest: np.ndarray,
        reach: np.ndarray,
        layer: np.ndarray,
    ) -> np.ndarray:
        """[S, K, 3] from roots [S, 3], where the skin faces `out`; they are `reach` [S] long."""
        count = 6 if reach.max() < 0.9 else 11
        fringe = self._is_fringe(rest)
        reach = np.where(fringe, self._fringe_reach(start, reach), reach)
        side = np.sign(rest[:, 0] - self.hair.part * (rest[:, 1] > 7.9))
        step = (reach / (count - 1))[:, None]
        heading = unit(self._comb(start, out, side, fringe) + self.style.lift * out)
        points = [start]
        hold = 0.9 * (self.style.lift < 0.5)
        for number in range(1, count):
            normal = self.skull.normal(points[-1])
            below = points[-1][:, 1:2] < self.skull.center[1] - 0.2
            fall = np.array([0.0, -1.0, 0.0]) - 0.3 * normal * below
            pull = self._comb(points[-1], normal, side, fringe)
            weight = self._weight(points[-1], fringe)
            heading = heading * (1 - 0.65 * weight) + weight * fall + (0.6 - 0.6 * weight) * pull
            # Strands that fall onto the skull slide along it.
            inward = (heading * normal).sum(1, keepdims=True).clip(None, 0)
            heading = unit(heading - inward * normal * ~below)
            grown = min(1.0, number / (0.35 * count))
            point = self.skull.kept_near(points[-1] + step * heading, layer * grown, hold)
            point = self._off_the_face(point, side, fringe)
            heading = (point - points[-1]) / step.clip(1e-6)
            points.append(point)
        return np.stack(points, 1)

    def _comb(
        self, points: np.ndarray, out: np.ndarray, side: np.ndarray, fringe: np.ndarray
    ) -> np.ndarray:
        """Unit vectors [N, 3] along the surface, in the direction that hair is combed."""
        match self.style.comb:
            case "back":
                along = np.tile([0.0, 0.25, -1.0], (len(points), 1))
            case "part":
                along = np.stack([side, 0 * side - 0.1, 0 * side - 0.55], 1)
            case _:
                along = points - CROWN + (0.0, 0.0, -0.15)
        forward = np.stack([0.15 * side, 0 * side - 0.5, 0 * side + 1.0], 1)
        along = np.where(fringe[:, None], forward, along)
        return unit(along - (along * out).sum(1, keepdims=True) * out)

    def _weight(self, points: np.ndarray, fringe: np.ndarray) -> np.ndarray:
        """How far strands [N, 1] follow their weight: above the forehead, their comb instead."""
        front = ((points[:, 2:] - 0.55) / 0.4).clip(0, 1) * (points[:, 1:2] > 7.6)
        return self.style.weight * np.where(fringe[:, None], 1, 1 - front)

    def _is_fringe(self, rest: np.ndarray) -> np.ndarray:
        angle = hairline(rest)[1]
        return (self.style.fringe > 0) & (angle < 46) & (rest[:, 2] > 0.75)

    def _fringe_reach(self, start: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """As far as the brows, along the skull."""
        far = (start[:, 1] - 7.62) * 1.12 + 0.12 + (1.35 - start[:, 2]).clip(0) * 0.6
        return np.minimum(reach, far * (0.75 + 0.25 * self.style.fringe)).clip(0.1)

    def _off_the_face(self, points: np.ndarray, side: np.ndarray, fringe: np.ndarray) -> np.ndarray:
        """Points in front of the face, drawn aside like a curtain."""
        x, y, z = points.T
        open_ = 0.74 * np.sqrt((1 - ((y - 7.0) / 0.9) ** 2).clip(0))
        hides = (z > 0.5) & (np.abs(x) < open_) & ~fringe
        return np.stack([np.where(hides, side * open_, x), y, np.where(hides, z - 0.06, z)], 1)


def _whole(points: np.ndarray) -> np.ndarray:
    """Which strands [S] never leap: those drawn aside from the face at once do."""
    steps = length(np.diff(points, axis=1))[..., 0]
    return steps.max(axis=1) < 1.6 * np.median(steps, axis=1) + 0.08


def _clumped(points: np.ndarray, guide: np.ndarray, clump: float, style: Style) -> np.ndarray:
    """Strands gather toward the guide of their lock, the more the nearer to the tip."""
    along = np.linspace(0, 1, points.shape[1])[:, None]
    leader = points[guide]
    together = leader + 0.25 * (points[:, :1] - leader[:, :1])
    return points + clump * 0.8 * along**1.5 * (together - points) * (style.lift < CRISP)


def _waved(points: np.ndarray, hair: Hair, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Waves of `curl` decimeters across strands; afros are crisp instead."""
    strands, count = points.shape[:2]
    if style.lift >= CRISP:
        return points + _walk(rng, points.shape, 0.03)
    reach = length(np.diff(points, axis=1)).sum(1)
    phase = rng.normal(0, 0.7, (strands, 1)) + points[:, 0, :1] * 3
    turn = phase + np.linspace(0, 1, count) * (reach / 0.55 * 2 * np.pi)
    wave = np.stack([np.cos(turn), 0.3 * np.sin(turn), np.sin(turn)], -1)
    grown = np.linspace(0, 1, count)[:, None].clip(0, 0.4) / 0.4
    return points + hair.curl * grown * wave * min(1.0, style.top)


def _walk(rng: np.random.Generator, shape: tuple[int, ...], step: float) -> np.ndarray:
    """Random walks [S, K, 3] that begin at zero."""
    steps = rng.normal(0, step, shape)
    steps[:, 0] = 0
    return steps.cumsum(axis=1)


def _tied(hair: Hair, tie: np.ndarray, rng: np.random.Generator) -> Strands:
    """A ball of hair round the tie, or a tail that falls from it."""
    count, points = 700, 9
    if hair.style == "bun":
        radius = 0.33 * hair.scale
        spot = unit(rng.normal(0, 1, (count, 3)))
        turn = np.cross(spot, rng.normal(0, 0.25, (count, 3)) + (0.0, 1.0, 0.6))
        arc = np.linspace(-0.9, 0.9, points)[:, None]
        path = spot[:, None] * np.cos(arc) + turn[:, None] * np.sin(arc)
        center = tie + (0, 0.08, -0.16)
        strands = center + radius * path * rng.uniform(0.8, 1.05, (count, 1, 1))
    else:
        along = np.linspace(0, 1, points)[:, None]
        reach = hair.scale * rng.uniform(1.5, 2.0, (count, 1, 1))
        spread = rng.normal(0, 1, (count, 1, 3)) * (0.05 + 0.16 * along) * (1, 0.4, 1)
        fall = np.concatenate([0 * along, 0.25 * along - along**1.6, -0.55 * along**0.6], 1)
        strands = tie + fall * reach + spread
        strands = strands + hair.curl * np.sin(along * 9 + rng.normal(0, 0.5, (count, 1, 1)))
    return _strands(strands, 0.04, hair.color, rng)
