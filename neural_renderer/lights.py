"""Light without shadows: an ambient one, and one from a direction (paper, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .camera import Vector
from .checks import check_textures


def lighting(
    faces: Tensor,
    textures: Tensor,
    intensity_ambient: float = 0.5,
    intensity_directional: float = 0.5,
    color_ambient: Vector = (1, 1, 1),
    color_directional: Vector = (1, 1, 1),
    direction: Vector = (0, 1, 0),
) -> Tensor:
    """Textures times the light that falls on each face.

    The light is ambient + directional x max(0, normal . direction), where the normal of a face is
    (v0 - v1) x (v2 - v1), of length 1.

    Args:
        faces: [B, F, 3, 3], in the space of the direction.
        textures: [B, F, T, T, T, 3].
        intensity_ambient: factor of the light from everywhere.
        intensity_directional: factor of the light from one direction.
        color_ambient: [3] or [B, 3].
        color_directional: [3] or [B, 3].
        direction: [3] or [B, 3], toward the light.

    Returns:
        [B, F, T, T, T, 3].

    Raises:
        ValueError: if textures and faces do not fit together.
    """
    check_textures(textures, faces)
    v0, v1, v2 = faces.unbind(2)
    normals = F.normalize(torch.linalg.cross(v0 - v1, v2 - v1), dim=-1)

    def per_face(vector: Vector) -> Tensor:
        return torch.as_tensor(vector).to(faces).reshape(-1, 1, 3)

    cosine = (normals * per_face(direction)).sum(-1, keepdim=True).relu()
    light = intensity_ambient * per_face(color_ambient)
    light = light + intensity_directional * per_face(color_directional) * cosine
    return textures * light[:, :, None, None, None]
