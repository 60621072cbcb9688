"""What is behind a head in a `wild` picture: gradients, lamps, textures, rooms, out of focus."""

import numpy as np
from PIL import Image, ImageFilter


def random_backdrop(rng: np.random.Generator, resolution: int) -> np.ndarray:
    """float32 [R, R, 3], sRGB in [0, 1]."""
    draw = KINDS[rng.choice(len(KINDS), p=SHARES)]
    blur = rng.uniform(0, 0.03) * resolution
    picture = Image.fromarray((draw(rng, resolution).clip(0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(blur)), np.float32) / 255


def _color(rng: np.random.Generator) -> np.ndarray:
    """Any lightness, mostly dull."""
    return (rng.uniform(0.05, 0.95) + rng.exponential(0.06) * rng.normal(0, 1, 3)).clip(0, 1)


def _noise(rng: np.random.Generator, resolution: int, cells: int) -> np.ndarray:
    """[R, R] in [0, 1]: random values at `cells`^2 places, smooth between."""
    grid = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((resolution, resolution), Image.Resampling.BICUBIC))


def _across(resolution: int, angle: float) -> np.ndarray:
    """[R, R]: how far pixels lie in a direction, from -1 to 1."""
    x = np.linspace(-1, 1, resolution)
    return np.cos(angle) * x + np.sin(angle) * x[:, None]


def _mixed(share: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """From one ([3] or [R, R, 3]) to the other by shares [R, R]."""
    return one + share[..., None] * (other - one)


def _gradient(rng: np.random.Generator, resolution: int) -> np.ndarray:
    share = (_across(resolution, rng.uniform(0, 6.28)) + 1) / 2
    return _mixed(share.clip(0, 1), _color(rng), _color(rng))


def _blobs(rng: np.random.Generator, resolution: int) -> np.ndarray:
    """Discs of light, as lamps far behind."""
    picture = _gradient(rng, resolution)
    x = np.linspace(-1, 1, resolution)
    for _ in range(rng.integers(4, 16)):
        column, row = rng.uniform(-1, 1, 2)
        distance = np.hypot(x - column, x[:, None] - row)
        radius = rng.uniform(0.06, 0.4)
        inside = ((radius - distance) * resolution / 4).clip(0, 1) * rng.uniform(0.2, 0.9)
        picture = _mixed(inside, picture, _color(rng))
    return picture


def _texture(rng: np.random.Generator, resolution: int) -> np.ndarray:
    """Leaves, stone, cloth: noise of several sizes in three colors."""
    rough = rng.uniform(0.3, 0.8)
    layers = [(4 * 2**i, rough**i) for i in range(4)]
    total = np.zeros((resolution, resolution))
    for cells, weight in layers:
        total += weight * _noise(rng, resolution, cells)
    share = (total / sum(weight for _, weight in layers) - 0.5) * rng.uniform(1.5, 4) + 0.5
    picture = _mixed(share.clip(0, 1), _color(rng), _color(rng))
    return _mixed(_noise(rng, resolution, 3).clip(0, 1) * 0.6, picture, _color(rng))


def _room(rng: np.random.Generator, resolution: int) -> np.ndarray:
    """A wall with things that have straight edges: doors, shelves, windows."""
    picture = _gradient(rng, resolution)
    place = (np.arange(resolution) + 0.5) / resolution
    for _ in range(rng.integers(2, 8)):
        left, top = rng.uniform(-0.3, 0.9, 2)
        width, height = rng.uniform(0.05, 0.7, 2)
        columns = (place > left) & (place < left + width)
        rows = (place > top) & (place < top + height)
        inside = (rows[:, None] & columns).astype(float) * rng.uniform(0.4, 1)
        picture = _mixed(inside, picture, _color(rng))
    return picture


KINDS = (_gradient, _blobs, _texture, _room)
SHARES = (0.25, 0.25, 0.3, 0.2)
