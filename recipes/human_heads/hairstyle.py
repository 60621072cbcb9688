"""How hair is cut, combed and colored, and how that is drawn at random. Lengths in decimeters."""

from typing import NamedTuple

import numpy as np

from .roots import CROWN, hairline

CRISP = 0.9  # lift of hair that stands off the head and winds at random


class Style(NamedTuple):
    """How a kind of hair is cut and combed. Lengths are in decimeters.

    top, side: length at the crown and at the hairline. lift: how steeply it leaves the skin.
    weight: how soon it falls. volume: how far the outermost strand lies off the skull.
    comb: 'whorl', 'back', 'part' or 'tie'. men, women: how often it is seen. fringe: how near to
    the brows hair falls over the forehead; 0 is not at all.
    """

    top: float
    side: float
    lift: float
    weight: float
    volume: float
    comb: str
    men: float
    women: float
    fringe: float = 0.0


STYLES = {
    "bald": Style(0.0, 0.0, 0.0, 0.0, 0.0, "whorl", 0.07, 0.0),
    "buzz": Style(0.07, 0.05, 0.8, 0.0, 0.04, "whorl", 0.15, 0.01),
    "short": Style(0.36, 0.13, 0.30, 0.15, 0.12, "whorl", 0.30, 0.04),
    "swept": Style(0.60, 0.16, 0.40, 0.10, 0.20, "back", 0.17, 0.04),
    "parted": Style(0.62, 0.18, 0.25, 0.25, 0.16, "part", 0.15, 0.04),
    "pixie": Style(0.65, 0.40, 0.25, 0.35, 0.15, "whorl", 0.02, 0.09, 0.7),
    "bob": Style(1.75, 0.85, 0.15, 0.8, 0.20, "part", 0.01, 0.17),
    "fringe": Style(1.8, 0.95, 0.15, 0.8, 0.20, "part", 0.0, 0.12, 1.0),
    "long": Style(3.0, 2.2, 0.12, 0.8, 0.20, "part", 0.03, 0.30),
    "ponytail": Style(1.0, 1.0, 0.0, 0.0, 0.07, "tie", 0.02, 0.09),
    "bun": Style(1.0, 1.0, 0.0, 0.0, 0.08, "tie", 0.02, 0.09),
    "afro": Style(0.34, 0.26, 1.0, 0.0, 0.6, "whorl", 0.06, 0.06),
}
TIES = {"ponytail": ((7.75, -0.55), (8.25, -0.30)), "bun": ((7.5, -0.55), (8.35, -0.35))}


class Hair(NamedTuple):
    """One person's hair. color: sRGB [3]. scale: of the style's lengths.

    part: x of the parting. recession, temples, crown: decimeters by which the hairline has moved
    back, and the radius of a bald crown. curl: decimeters of waves. beard: 0 (shaven) to 1.
    beard_kind: 'stubble', 'full', 'goatee' or 'mustache'. brow_density: share of its hairs.
    tie: (y, z) of where hair is tied. seed: of the strands.
    """

    style: str
    color: np.ndarray
    scale: float
    part: float
    recession: float
    temples: float
    crown: float
    curl: float
    clump: float
    beard: float
    beard_kind: str
    brow_density: float
    brow_color: np.ndarray
    tie: tuple[float, float]
    seed: int

    @classmethod
    def random(
        cls, rng: np.random.Generator, color: np.ndarray, maleness: float, age: float, curly: bool
    ) -> "Hair":
        style = _random_style(rng, maleness, age, curly)
        aging = maleness * max(0.0, age - 0.45) * 2
        bearded = maleness > 0.5 and rng.random() < 0.5
        low, high = np.array(TIES.get(style, ((8, 0), (8, 0))))
        wavy = rng.random() < 0.45
        return cls(
            style, color,
            scale=rng.uniform(0.75, 1.2),
            part=rng.uniform(-0.4, 0.4),
            recession=rng.uniform(-0.03, 0.1) + 0.25 * aging * rng.random(),
            temples=rng.uniform(0, 0.1) + 0.3 * aging * rng.random(),
            crown=max(0.0, rng.uniform(-0.9, 0.75) * aging),
            curl=rng.uniform(0.03, 0.09) if wavy or curly else rng.uniform(0.0, 0.015),
            clump=rng.uniform(0.3, 0.75),
            beard=rng.uniform(0.3, 1) if bearded else rng.uniform(0, 0.25) * (maleness > 0.5),
            beard_kind=str(rng.choice(["stubble", "full", "goatee", "mustache"],
                                      p=[0.4, 0.35, 0.15, 0.1])),
            brow_density=float(np.clip(rng.normal(0.5 + 0.35 * maleness, 0.15), 0.3, 1)),
            brow_color=color * rng.uniform(0.65, 1.0),
            tie=tuple(low + (high - low) * rng.random()),
            seed=int(rng.integers(2**31)),
        )  # fmt: skip


def _random_style(rng: np.random.Generator, maleness: float, age: float, curly: bool) -> str:
    share = np.array([s.men * maleness + s.women * (1 - maleness) for s in STYLES.values()])
    names = list(STYLES)
    share[names.index("afro")] *= 5 if curly else 0.5
    share[names.index("bald")] *= 0.3 + 2 * max(0.0, age - 0.5)
    return str(rng.choice(names, p=share / share.sum()))


def scalp_cover(hair: Hair, rest: np.ndarray) -> np.ndarray:
    """Height [N] above this person's own hairline; negative is bare."""
    height, angle = hairline(rest)
    front = np.exp(-((angle / 55) ** 4))
    temple = np.exp(-(((angle - 42) / 16) ** 2))
    height = height - hair.recession * front - hair.temples * temple
    from_crown = np.linalg.norm(rest - CROWN, axis=1) - hair.crown
    return np.where(hair.crown > 0.05, np.minimum(height, from_crown), height)
