"""Images that textures are sampled from, and an image that textures are saved in."""

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import ops

WRAPPINGS = ("REPEAT", "MIRRORED_REPEAT", "CLAMP_TO_EDGE", "CLAMP_TO_BORDER")
_ATLAS_CELL = 16  # pixels a side for each face


def read_image(path: Path) -> Tensor:
    """The colors of an image, [H, W, 3] in [0, 1].

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images, and refuses those of twice that size.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return torch.from_numpy(_colors(image))
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"the texture image {path} is too large ({error}); shrink it, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:  # decoders raise whatever they stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot read the texture image {path}: {reason}") from error


def _colors(image: Image.Image) -> np.ndarray:
    """[H, W, 3] float32 in [0, 1]; Pillow's own conversion cuts off gray of more than 8 bits."""
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.float32) / 65535
    elif image.mode == "F":
        gray = np.asarray(image, np.float32)
    else:
        return np.asarray(image.convert("RGB"), np.float32) / 255
    return np.repeat(gray.clip(0, 1)[..., None], 3, -1)


def cube_weights(size: int) -> Tensor:
    """Barycentric weights of the texels of a cube, [T, T, T, 3].

    The indices of a texel are its weights x (T - 1). Few have weights that sum to 1; the others
    are scaled to, which keeps them within the face.
    """
    axis = torch.arange(size, dtype=torch.float32)
    weights = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp(min=1), 1 / 3)


def look_up(image: Tensor, places: Tensor, wrapping: str, bilinear: bool) -> Tensor:
    """Colors [..., 3] of an image [H, W, 3] at texture coordinates [..., 2] (v runs up)."""
    height, width = image.shape[:2]
    x = places[..., 0] * width - 0.5
    y = (1 - places[..., 1]) * height - 0.5

    def texel(row: Tensor, column: Tensor) -> Tensor:
        row, row_inside = _wrap(row.long(), height, wrapping)
        column, column_inside = _wrap(column.long(), width, wrapping)
        return image[row, column] * (row_inside & column_inside)[..., None]

    if not bilinear:
        return texel(y.round(), x.round())
    left, top = x.floor(), y.floor()
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = texel(top, left) * (1 - across) + texel(top, left + 1) * across
    lower = texel(top + 1, left) * (1 - across) + texel(top + 1, left + 1) * across
    return upper * (1 - down) + lower * down


def _wrap(index: Tensor, size: int, wrapping: str) -> tuple[Tensor, Tensor]:
    """An index that exists, and whether there is anything there."""
    inside = torch.ones_like(index, dtype=torch.bool)
    if wrapping == "REPEAT":
        return index % size, inside
    if wrapping == "MIRRORED_REPEAT":
        index = index % (2 * size)
        return torch.where(index < size, index, 2 * size - 1 - index), inside
    if wrapping == "CLAMP_TO_BORDER":
        inside = (index >= 0) & (index < size)
    return index.clamp(0, size - 1), inside


def atlas(textures: Tensor) -> tuple[Image.Image, Tensor]:
    """An image with a square cell for each face, and its texture coordinates [F, 3, 2].

    The atlas is an image whose pixels see the faces at known weights: so the sampler paints it.
    """
    count, cell = len(textures), _ATLAS_CELL
    columns = max(math.ceil(math.sqrt(count)), 1)
    size = columns * cell
    y, x = (torch.arange(size).view(shape) for shape in ((-1, 1), (1, -1)))
    index = (y // cell * columns + x // cell).int()
    index = torch.where(index < count, index, -1)

    # A face fills the upper left half of its cell; beyond it, its edge is repeated.
    w1, w2 = (axis % cell / (cell - 1) for axis in torch.broadcast_tensors(x, y))
    weights = torch.stack(((1 - w1 - w2).clamp(min=0), w1, w2))
    weights = weights / weights.sum(0)
    fragments = ops.Fragments(index[None], weights[None].contiguous(), torch.empty(0))
    sampler = ops.select(None, textures.device)
    rgb = sampler.sample(textures[None], fragments, torch.zeros(3))[0]

    face = torch.arange(count)
    origin = torch.stack((face % columns, face // columns), -1)[:, None] * cell
    corners = origin + 0.5 + (cell - 1) * torch.tensor([[0, 0], [1, 0], [0, 1]])
    uvs = corners / size
    uvs[..., 1] = 1 - uvs[..., 1]
    pixels = (rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy()), uvs
