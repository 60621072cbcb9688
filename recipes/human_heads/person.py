"""Who a person is: shape, skin, eyes, hair. And what changes from picture to picture: expression.

Weights of targets are small, and drawn so that faces stay plausible.
"""

import functools
from typing import NamedTuple

import numpy as np

from .anatomy import Anatomy
from .hairstyle import Hair
from .light import Light

# sRGB, from dark to light, of faces; ends and steps of a mixture.
SKINS = np.array([
    (0.27, 0.17, 0.12), (0.42, 0.28, 0.20), (0.58, 0.41, 0.31), (0.73, 0.55, 0.43),
    (0.84, 0.68, 0.56), (0.92, 0.78, 0.69),
])  # fmt: skip
# Where on this scale, from 0 to 1, each of the races of the model tends to lie.
TONES = {"african": 0.22, "asian": 0.72, "caucasian": 0.85}
IRISES = np.array([
    (0.17, 0.09, 0.05), (0.26, 0.15, 0.08), (0.38, 0.26, 0.13), (0.36, 0.38, 0.22),
    (0.28, 0.43, 0.57), (0.42, 0.50, 0.55),
])  # fmt: skip
HAIRS = np.array([
    (0.07, 0.06, 0.06), (0.14, 0.10, 0.08), (0.25, 0.16, 0.10), (0.38, 0.25, 0.15),
    (0.58, 0.42, 0.24), (0.76, 0.62, 0.39), (0.50, 0.22, 0.10), (0.62, 0.61, 0.60),
])  # fmt: skip
GRAY = len(HAIRS) - 1
DARK = {"african": 0.92, "asian": 0.85, "caucasian": 0.25}  # chance of dark hair and eyes

LOCAL_SPREAD, LOCAL_LIMIT, LEANING = 0.25, 0.6, 0.06
LEFT_OUT = ("head-age", "head-angle", "head-trans", "neck-trans", "measure", "neck-double")
# These already differ much between people at a small weight.
TAMED = {
    "head-scale": 0.5,
    "mouth-trans": 0.4,
    "nose-trans": 0.4,
    "mouth/": 0.6,
    "eye-trans": 0.4,
    "ear-": 0.7,
}
FACE_SHAPES = ("oval", "round", "rectangular", "square", "triangular", "diamond")


class Person(NamedTuple):
    """weights: of targets, without expression. skin, lips, iris, shirt: sRGB [3].

    maleness, age: in [0, 1]; an age of 0.5 is young, 1 old. blush, gloss: strengths in [0, 1].
    neckline: how wide and how deep the shirt is cut, in decimeters. spots: seed of the skin's.
    """

    weights: dict[str, float]
    maleness: float
    age: float
    skin: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    shirt: np.ndarray
    neckline: tuple[float, float]
    blush: float
    gloss: float
    hair: Hair
    spots: int

    @classmethod
    def random(cls, anatomy: Anatomy, rng: np.random.Generator) -> "Person":
        races = rng.dirichlet([0.35] * 3)
        race = list(TONES)[int(races.argmax())]
        maleness = float(np.clip(rng.integers(2) + rng.normal(0, 0.12), 0, 1))
        age = float(rng.choice([rng.uniform(0.36, 0.5), rng.uniform(0.5, 0.85)], p=[0.25, 0.75]))
        weights = _macro(dict(zip(TONES, races, strict=True)), maleness, age, rng)
        weights |= _local(anatomy, rng)
        tone = float(np.clip(races @ list(TONES.values()) + rng.normal(0, 0.08), 0, 1))
        skin = _between(SKINS, tone) * (1 + rng.normal(0, 0.02, 3))
        dark = rng.random() < DARK[race]
        color = _hair_color(dark, age, rng)
        return cls(
            weights, maleness, age, skin.clip(0.1, 0.95),
            lips=_lips(skin, maleness, rng),
            iris=_between(IRISES, rng.uniform(0, 0.3) if dark else rng.uniform(0.3, 1)),
            shirt=_shirt(rng),
            neckline=(rng.uniform(0.0, 0.35), rng.uniform(-0.1, 0.6)),
            blush=rng.uniform(0.2, 1.0),
            gloss=rng.uniform(0.04, 0.14),
            hair=Hair.random(rng, color, maleness, age, curly=race == "african"),
            spots=int(rng.integers(2**31)),
        )  # fmt: skip


class Shot(NamedTuple):
    """What differs between photographs of one person.

    expression: weights of targets. gaze: [2], radians by which both eyes turn right and up.
    cam2world: [4, 4]. intrinsics: [3, 3], normalized by image size.
    """

    expression: dict[str, float]
    gaze: np.ndarray
    light: Light
    cam2world: np.ndarray
    intrinsics: np.ndarray


def _between(palette: np.ndarray, place: float) -> np.ndarray:
    """The color at `place` in [0, 1] of a palette."""
    steps = np.linspace(0, 1, len(palette))
    return np.array([np.interp(place, steps, channel) for channel in palette.T])


def _macro(
    races: dict[str, float], maleness: float, age: float, rng: np.random.Generator
) -> dict[str, float]:
    """Mixtures of the model's main shapes, whose weights multiply."""
    sexes = {"female": 1 - maleness, "male": maleness}
    ages = _mixture(age, {0.1875: "child", 0.5: "young", 1.0: "old"})
    weight = _mixture(
        rng.normal(0.5, 0.15), {0.0: "minweight", 0.5: "averageweight", 1.0: "maxweight"}
    )
    muscle = _mixture(
        rng.normal(0.5, 0.15), {0.0: "minmuscle", 0.5: "averagemuscle", 1.0: "maxmuscle"}
    )
    weights = {}
    for sex, s in sexes.items():
        for years, a in ages.items():
            for race, r in races.items():
                weights[f"macrodetails/{race}-{sex}-{years}"] = r * s * a
            for strength, m in muscle.items():
                for fat, f in weight.items():
                    name = f"macrodetails/universal-{sex}-{years}-{strength}-{fat}"
                    weights[name] = s * a * m * f
    return {name: float(weight) for name, weight in weights.items() if weight > 1e-3}


def _mixture(value: float, stops: dict[float, str]) -> dict[str, float]:
    """Weights of the two names between whose places `value` lies."""
    places = list(stops)
    value = min(max(value, places[0]), places[-1])
    rows = np.eye(len(places))
    return {name: float(np.interp(value, places, rows[i])) for i, name in enumerate(stops.values())}


OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"),
    ("concave", "convex"), ("compress", "uncompress"),
)  # fmt: skip


@functools.lru_cache(maxsize=4)
def opposites(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs of opposite targets of parts of the head; of those with sides, only the left."""
    found = []
    for name in names:
        folder, base = name.split("/", 1)
        skipped = folder in ("macrodetails", "expression") or base.startswith(("r-", *LEFT_OUT))
        for low, high in OPPOSITES:
            other = f"{name.removesuffix(low)}{high}"
            if not skipped and name.endswith(f"-{low}") and other in names:
                found.append((name, other))
    return found


def _local(anatomy: Anatomy, rng: np.random.Generator) -> dict[str, float]:
    """Features: opposite targets with normal weights, left and right nearly alike."""
    weights = {}
    for low, high in opposites(tuple(anatomy.rows)):
        tamed = min((f for key, f in TAMED.items() if key in low), default=1.0)
        value = float(np.clip(rng.normal(0, LOCAL_SPREAD), -LOCAL_LIMIT, LOCAL_LIMIT)) * tamed
        chosen = high if value > 0 else low
        weights[chosen] = abs(value)
        if "/l-" in chosen:
            leaning = 1 + rng.normal(0, LEANING)
            weights[chosen.replace("/l-", "/r-")] = abs(value) * leaning
    weights[f"head/head-{rng.choice(FACE_SHAPES)}"] = rng.uniform(0, 0.5)
    return weights


def _hair_color(dark: bool, age: float, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < max(0.0, 1.5 * (age - 0.58)):
        color = _between(HAIRS[[1, GRAY]], rng.uniform(0.5, 1))
    elif dark:
        color = _between(HAIRS[:3], rng.uniform(0, 1))
    else:
        color = _between(HAIRS[1:6], rng.uniform(0, 1)) if rng.random() < 0.85 else HAIRS[6]
    return (color * rng.uniform(0.9, 1.1) + rng.normal(0, 0.008, 3)).clip(0.04, 0.9)


def _lips(skin: np.ndarray, maleness: float, rng: np.random.Generator) -> np.ndarray:
    """Redder and darker than skin; painted, if at all, on women."""
    natural = skin * (0.88, 0.62, 0.62) + (0.04, 0.0, 0.01)
    if rng.random() < 0.35 * (1 - maleness):
        paint = np.array([0.68, 0.13, 0.18]) + rng.normal(0, 0.08, 3)
        return (natural + (paint - natural) * rng.uniform(0.4, 0.85)).clip(0.05, 0.9)
    return (natural * (1 + rng.normal(0, 0.04, 3))).clip(0.05, 0.9)


def _shirt(rng: np.random.Generator) -> np.ndarray:
    gray = rng.uniform(0.08, 0.8)
    return (gray + rng.uniform(0, 0.22) * rng.normal(0, 1, 3)).clip(0.04, 0.85)


EXPRESSIONS = {
    "neutral": (0.28, {}),
    "smile": (0.28, {"mouth-corner-puller": 0.9, "mouth-retraction": 0.4, "eye-*-slit": 0.2}),
    "laugh": (0.16, {"mouth-upward-retraction": 0.9, "mouth-corner-puller": 0.4}),
    "surprise": (0.06, {"eyebrows-*-up": 0.7, "eye-*-opened-up": 0.4, "mouth-open": 0.25}),
    "frown": (0.06, {"eyebrows-*-down": 0.7, "mouth-depression": 0.4}),
    "talk": (0.08, {"mouth-open": 0.3, "eyebrows-*-up": 0.2}),
    "doubt": (0.05, {"eyebrows-left-up": 0.6, "mouth-compression": 0.4}),
    "kiss": (0.03, {"mouth-pursing": 0.5}),
}


def random_expression(rng: np.random.Generator) -> dict[str, float]:
    """Weights of targets: a mood, at any strength, and a little of anything else."""
    shares = [share for share, _ in EXPRESSIONS.values()]
    mood = list(EXPRESSIONS.values())[rng.choice(len(shares), p=shares)][1]
    strength = rng.uniform(0.35, 1.0)
    weights = {unit: strength * weight for unit, weight in mood.items()}
    weights.setdefault("eye-*-closure", max(0.0, rng.normal(0.03, 0.07)))
    named = {}
    for unit, weight in weights.items():
        for side in ("left", "right"):
            named[f"expression/units/caucasian/{unit.replace('*', side)}"] = weight
    return named
