"""Refuses tensors that do not fit, in words."""

import torch
from torch import Tensor


def check_faces(faces: Tensor) -> None:
    """ValueError unless faces are [B, F, 3, 3] numbers that can be rasterized."""
    if faces.ndim != 4 or faces.shape[2:] != (3, 3):
        raise ValueError(f"faces must be [batch, faces, 3, 3], not {list(faces.shape)}")
    if faces.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"faces must be float32 or float64, not {faces.dtype}")


def check_textures(textures: Tensor, faces: Tensor) -> None:
    """ValueError unless textures are [B, F, T, T, T, 3], of the type and place of the faces."""
    cube = textures.shape[2] if textures.ndim == 6 else 0
    if cube < 1 or textures.shape != (*faces.shape[:2], cube, cube, cube, 3):
        raise ValueError(
            f"textures must be [batch={faces.shape[0]}, faces={faces.shape[1]}, T, T, T, 3], "
            f"not {list(textures.shape)}"
        )
    if textures.dtype != faces.dtype or textures.device != faces.device:
        raise ValueError(
            f"textures ({textures.dtype}, {textures.device}) must match faces "
            f"({faces.dtype}, {faces.device})"
        )


def whole_numbers(faces: Tensor) -> Tensor:
    """Indices of any type of whole numbers as int64, for which torch has all functions.

    Raises:
        ValueError: if they are of another type.
    """
    if faces.is_floating_point() or faces.is_complex() or faces.dtype == torch.bool:
        raise ValueError(f"faces must be whole numbers, not {faces.dtype}")
    return faces.long()
