"""Meshes as tensors."""

from pathlib import Path

import torch
from torch import Tensor

from .checks import whole_numbers
from .obj import load_obj, save_obj
from .ops.registration import is_traced


def vertices_to_faces(vertices: Tensor, faces: Tensor) -> Tensor:
    """The vertices of each face.

    Args:
        vertices: [B, V, 3].
        faces: [B, F, 3] indices of vertices.

    Returns:
        [B, F, 3, 3].

    Raises:
        ValueError: if the shapes do not fit, or an index points to no vertex.
    """
    if vertices.ndim != 3 or vertices.shape[2] != 3:
        raise ValueError(f"vertices must be [batch, vertices, 3], not {list(vertices.shape)}")
    batch, count = vertices.shape[:2]
    if faces.ndim != 3 or faces.shape[2] != 3 or len(faces) != batch:
        raise ValueError(f"faces must be [batch={batch}, faces, 3], not {list(faces.shape)}")
    faces = whole_numbers(faces)
    if not is_traced(faces) and faces.numel():
        low, high = (int(x) for x in faces.aminmax())
        if low < 0 or high >= count:
            raise ValueError(f"faces use vertices {low} to {high}, but there are only {count}")
    offset = count * torch.arange(batch, device=faces.device)[:, None, None]
    picked = vertices.reshape(-1, 3).index_select(0, (faces + offset).reshape(-1))
    return picked.view(*faces.shape, 3)


class Mesh:
    """One mesh: vertices [V, 3], faces [F, 3] and textures [F, T, T, T, 3] (white by default)."""

    def __init__(
        self,
        vertices: Tensor,
        faces: Tensor,
        textures: Tensor | None = None,
        texture_size: int = 4,
    ) -> None:
        self.vertices = vertices
        self.faces = faces
        if textures is None:
            textures = vertices.new_ones(len(faces), *(texture_size,) * 3, 3)
        self.textures = textures

    @classmethod
    def fromobj(
        cls,
        filename_obj: str | Path,
        normalization: bool = True,
        load_texture: bool = False,
        texture_size: int = 4,
    ) -> "Mesh":
        """Read an .obj file; see `load_obj`."""
        vertices, faces, *textures = load_obj(
            filename_obj, normalization, texture_size, load_texture
        )
        return cls(vertices, faces, textures[0] if textures else None, texture_size)

    def save(self, filename: str | Path) -> None:
        """Write an .obj file; see `save_obj`."""
        save_obj(filename, self.vertices, self.faces, self.textures)

    @property
    def num_vertices(self) -> int:
        """V."""
        return len(self.vertices)

    @property
    def num_faces(self) -> int:
        """F."""
        return len(self.faces)

    @property
    def texture_size(self) -> int:
        """T."""
        return self.textures.shape[1]
