"""The square that stands for a photograph, and what becomes of its camera."""

import numpy as np
from PIL import Image

CROPS = ("center", "pad")

# EXIF orientations as maps of positions (u, v, 1), in units of width and height from the top left.
_ORIENTATIONS = {
    2: ((-1, 0, 1), (0, 1, 0)),
    3: ((-1, 0, 1), (0, -1, 1)),
    4: ((1, 0, 0), (0, -1, 1)),
    5: ((0, 1, 0), (1, 0, 0)),
    6: ((0, -1, 1), (1, 0, 0)),
    7: ((0, -1, 1), (-1, 0, 1)),
    8: ((0, 1, 0), (-1, 0, 1)),
}


def square_corner(width: int, height: int, crop: str) -> tuple[int, int, int]:
    """Where the square lies that stands for an image.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        crop: 'center' takes the largest central square, 'pad' the smallest that holds the image.

    Returns:
        (left, top, side) in pixels; left and top are negative where it pads.
    """
    side = min(width, height) if crop == "center" else max(width, height)
    return (width - side) // 2, (height - side) // 2, side


def to_square(image: Image.Image, resolution: int | None, crop: str) -> Image.Image:
    """Crop or pad (with white) to a square, then Lanczos to `resolution`; None keeps the size."""
    left, top, side = square_corner(*image.size, crop)
    canvas = image
    if image.size != (side, side):
        canvas = Image.new("RGB", (side, side), "white")
        canvas.paste(image, (-left, -top))
    if resolution is None or resolution == side:
        return canvas
    return canvas.resize((resolution, resolution), Image.Resampling.LANCZOS)


def squared_label(label: list[float], width: int, height: int, crop: str) -> list[float]:
    """A camera label after `to_square` of its image.

    Intrinsics are in units of the image's width and height: focal lengths and skew scale, the
    principal point shifts too. Those of square images stay as they are.

    Args:
        label: cam2world, 16 numbers, then intrinsics, 9.
        width: of the image, in pixels.
        height: of the image, in pixels.
        crop: as there.
    """
    left, top, side = square_corner(width, height, crop)
    squared = np.array([[width, 0, -left], [0, height, -top], [0, 0, side]]) / side
    intrinsics = squared @ np.reshape(label[16:], (3, 3))
    return [*label[:16], *intrinsics.flatten().tolist()]


def upright_label(label: list[float], orientation: int) -> list[float]:
    """A camera label of the stored pixels after these were turned upright.

    The map of positions times the intrinsics is again intrinsics times a rotation, which turns the
    camera's axes (RQ decomposition: Hartley and Zisserman, Multiple View Geometry, A4.1). An
    orientation that mirrors shows the world's mirror image through x = 0, as `--mirror` does.

    Args:
        label: cam2world, 16 numbers, then intrinsics, 9.
        orientation: EXIF's, 1 to 8.
    """
    if orientation == 1:
        return label
    turn = np.array([*_ORIENTATIONS[orientation], (0, 0, 1)], dtype=np.float64)
    intrinsics, axes = _rq(turn @ np.reshape(label[16:], (3, 3)))
    cam2world = np.reshape(np.array(label[:16], dtype=np.float64), (4, 4))
    cam2world[:3, :3] = cam2world[:3, :3] @ axes.T
    if np.linalg.det(axes) < 0:
        cam2world[0] = -cam2world[0]
    return [*cam2world.flatten().tolist(), *intrinsics.flatten().tolist()]


def _rq(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors of `matrix` [3, 3]: upper triangular with a positive diagonal, and orthogonal."""
    q, r = np.linalg.qr(matrix[::-1].T)
    upper, orthogonal = r.T[::-1, ::-1], q.T[::-1]
    signs = np.where(np.diag(upper) < 0, -1.0, 1.0)
    return upper * signs, signs[:, None] * orthogonal
