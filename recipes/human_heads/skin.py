"""Colors of skin, lips, lids, teeth, shirts and eyes."""

import numpy as np

from .anatomy import LASHES, LEFT_EYE, RIGHT_EYE, SKIN, TEETH, TONGUE, Anatomy
from .geometry import unit
from .hairstyle import scalp_cover
from .light import to_linear
from .person import Person, Shot
from .roots import beard_cover

TEETH_COLOR, TONGUE_COLOR = (1.25, 1.20, 1.12), (0.60, 0.30, 0.30)
MOUTH_COLOR, LASH_COLOR = (0.30, 0.10, 0.10), (0.05, 0.04, 0.04)
SCLERA, PUPIL = (0.86, 0.84, 0.83), (0.015, 0.015, 0.015)
IRIS_ANGLE, PUPIL_ANGLE = 0.50, 0.20  # radians from the eye's axis
EYE_CENTER = np.array([0.3078, 7.2842, 1.2454], np.float32)  # the left one's
NECKLINE = 5.9  # height at rest of the deepest point of a collar that is not cut at all


def albedo(anatomy: Anatomy, person: Person) -> np.ndarray:
    """Linear RGB [V, 3] of vertices; eyes are white here, see `eye_color`."""
    color = np.ones((len(anatomy.rest), 3), np.float32)
    color[anatomy.part == TEETH] = to_linear(TEETH_COLOR)
    color[anatomy.part == TONGUE] = to_linear(TONGUE_COLOR)
    lashes = person.skin + (np.array(LASH_COLOR) - person.skin) * (0.9 - 0.5 * person.maleness)
    color[anatomy.part == LASHES] = to_linear(lashes)
    skin = anatomy.part == SKIN
    color[skin] = to_linear(_skin(anatomy, person)[skin])
    return color


def gloss(anatomy: Anatomy, person: Person) -> np.ndarray:
    """Strength [V] of highlights: lips and nose shine, shirts and what hair covers do not."""
    strength = np.full(len(anatomy.rest), person.gloss, np.float32)
    strength += 0.08 * anatomy.masks["lips"]
    strength[(anatomy.part == LEFT_EYE) | (anatomy.part == RIGHT_EYE)] = 0
    strength[anatomy.part == LASHES] = 0
    return strength * (_collar(anatomy.rest, person) < 0)


def _skin(anatomy: Anatomy, person: Person) -> np.ndarray:
    """sRGB [V, 3] of vertices, as if all were skin."""
    rest = anatomy.rest
    color = np.tile(person.skin.astype(np.float32), (len(rest), 1))
    color = color * (1 + _spots(person.spots, rest))
    color = _blended(color, person.skin * (1.06, 0.80, 0.78), person.blush * 0.55 * _ruddy(rest))
    color = _blended(color, person.skin * (0.80, 0.70, 0.68), 0.35 * _sockets(rest))
    color = _blended(color, person.lips, anatomy.masks["lips"] * 0.9)
    color = _blended(color, np.array(MOUTH_COLOR), anatomy.masks["inside-mouth"])
    shadow = _smooth(beard_cover(rest, anatomy.masks["lips"]), 0.0, 0.14)
    gray = 0.45 * person.skin + 0.55 * person.hair.color * 0.8
    color = _blended(color, gray, 0.8 * person.hair.beard * shadow)
    if person.hair.style != "bald":
        roots = _smooth(scalp_cover(person.hair, rest), -0.03, 0.05)
        roots = roots * (anatomy.masks["ears"] < 0.2)
        tint = 0.55 if person.hair.style == "buzz" else 0.85
        color = _blended(color, person.hair.color * 0.7, tint * roots)
    return _blended(color, person.shirt, _smooth(_collar(rest, person), -0.02, 0.02)).clip(0.01, 1)


def _blended(color: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return color + (other.astype(np.float32) - color) * share[:, None].astype(np.float32)


def _smooth(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = ((value - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def _near(rest: np.ndarray, place: tuple[float, float, float], radius: float) -> np.ndarray:
    """A bump of that radius round a place and its mirror image."""
    distance = (np.abs(rest[:, 0]) - place[0]) ** 2 + ((rest[:, 1:] - place[1:]) ** 2).sum(1)
    return np.exp(-distance / radius**2)


def _ruddy(rest: np.ndarray) -> np.ndarray:
    """Where blood shows: cheeks, the tip of the nose, ears, chin."""
    cheeks = _near(rest, (0.42, 6.92, 1.35), 0.24)
    nose = 0.8 * _near(rest, (0.0, 6.92, 1.68), 0.14)
    ears = 0.8 * _near(rest, (0.82, 7.05, 0.45), 0.25)
    chin = 0.35 * _near(rest, (0.0, 6.3, 1.5), 0.15)
    return cheeks + nose + ears + chin


def _sockets(rest: np.ndarray) -> np.ndarray:
    """The darker skin round the eyes."""
    return _near(rest, (0.27, 7.22, 1.38), 0.17)


def _collar(rest: np.ndarray, person: Person) -> np.ndarray:
    """How far below the edge of the shirt vertices lie, in decimeters."""
    width, depth = person.neckline
    front = (rest[:, 2] > 0.2) * np.exp(-((rest[:, 0] / 0.35) ** 2))
    edge = NECKLINE - 0.55 * width - 0.9 * max(depth, 0) * front
    edge = edge - 0.25 * _smooth(rest[:, 2], -0.3, 0.8)
    return edge - rest[:, 1] + 0.35 * np.minimum(np.abs(rest[:, 0]) - 0.45, 0.6)


def _spots(seed: int, rest: np.ndarray) -> np.ndarray:
    """Relative changes [V, 1] of the skin's color: blotches of several sizes."""
    rng = np.random.default_rng(seed)
    total = np.zeros(len(rest), np.float32)
    for size, strength in ((0.9, 0.02), (0.3, 0.018), (0.08, 0.02)):
        waves = rng.normal(0, 1 / size, (3, 6)).astype(np.float32)
        phase = rng.uniform(0, 6.28, 6).astype(np.float32)
        total += strength * np.sin(rest @ waves + phase).sum(1) / 1.7
    return total[:, None]


def eye_color(person: Person, shot: Shot, rest: np.ndarray, falling: np.ndarray) -> np.ndarray:
    """Linear RGB [P, 3] of points on the eyes, given where they are at rest and their light."""
    mirrored = np.where(rest[:, :1] > 0, (1, 1, 1), (-1, 1, 1)).astype(np.float32)
    outward = unit(rest - EYE_CENTER * mirrored)
    right, up = shot.gaze
    axis = np.array([right, up + 0.02, 1.0], np.float32)
    angle = np.arccos((outward @ unit(axis)).clip(-1, 1))
    color = _iris(person, angle) * falling * 1.2
    half = unit(shot.light.direction + unit(shot.cam2world[:3, 3])).astype(np.float32)
    glint = np.exp(-(((1 - outward @ half) / 0.012) ** 2))
    return color + 0.8 * glint[:, None] * falling.mean(axis=1, keepdims=True)


def _iris(person: Person, angle: np.ndarray) -> np.ndarray:
    """Linear RGB [P, 3] at angles from the eye's axis: pupil, iris, its dark rim, white."""
    white, iris, pupil = (to_linear(np.array(c)) for c in (SCLERA, person.iris, PUPIL))
    ring = np.exp(-(((angle - IRIS_ANGLE) / 0.07) ** 2))[:, None]
    inner = _smooth(angle, PUPIL_ANGLE - 0.03, PUPIL_ANGLE + 0.03)[:, None]
    outer = _smooth(angle, IRIS_ANGLE - 0.03, IRIS_ANGLE + 0.04)[:, None]
    color = pupil + (iris * 1.25 - pupil) * inner
    color = color + (white - color) * outer
    return color * (1 - 0.55 * ring)
