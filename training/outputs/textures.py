"""Textures of meshes: fewer faces, unwrapped onto a square that is painted with the field's colors.

Blender and its kin show textures at once, vertex colors only when told to; and a texture is finer
than the vertices. Needs fast-simplification and xatlas (`pip install fast-simplification xatlas`).
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import neural_renderer
from dnnlib import UserError
from training.networks.generator import Generator
from training.outputs.mesh_colors import quantized, surface_colors, vertex_normals
from training.outputs.meshes import Mesh
from training.outputs.shading import corner_textures

SEAM = 4  # pixels by which patches reach beyond their edges, and half of what parts them


class TexturedMesh(NamedTuple):
    """A mesh that is cut along seams, where vertices stand twice.

    uv: float32 [V, 2] in [0, 1], from the picture's lower left corner. image: square, sRGB.
    """

    mesh: Mesh
    uv: np.ndarray
    image: Image.Image


def check_packages() -> None:
    """Raises UserError where the optional packages are absent."""
    try:
        import fast_simplification  # noqa: F401
        import xatlas  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"textures need the package {error.name}: pip install fast-simplification xatlas; "
            "or leave out --texture, for colors of vertices"
        ) from error


def textured(
    generator: Generator, planes: Tensor, mesh: Mesh, size: int, faces: int
) -> TexturedMesh:
    """Simplify, unwrap and paint a mesh.

    Args:
        generator: the generator.
        planes: [1, 3, C, H, W], of the object whose surface the mesh is.
        mesh: not empty.
        size: pixels a side of the texture.
        faces: how many are left, roughly; a mesh that has fewer keeps them.

    Raises:
        UserError: where the optional packages are absent.
    """
    check_packages()
    small = simplified(mesh, faces)
    cut, uv, normals = _unwrapped(small, size)
    places, covered = _painted(cut, uv, torch.from_numpy(cut.vertices), size)
    directions, _ = _painted(cut, uv, normals, size)
    image = torch.zeros(size, size, 3)
    image[covered] = surface_colors(
        generator, planes, places[covered], F.normalize(directions[covered], dim=-1)
    )
    return TexturedMesh(cut, uv, Image.fromarray(quantized(_dilated(image, covered))))


def simplified(mesh: Mesh, faces: int) -> Mesh:
    """The mesh with about `faces` faces (Garland and Heckbert 1997, quadric error metrics)."""
    import fast_simplification

    if len(mesh.faces) <= faces:
        return mesh
    vertices, kept = fast_simplification.simplify(mesh.vertices, mesh.faces, target_count=faces)
    return Mesh(vertices.astype(np.float32), kept.astype(np.int32))


def _unwrapped(mesh: Mesh, size: int) -> tuple[Mesh, np.ndarray, Tensor]:
    """The mesh cut along seams, its uv [V, 2], and normals [V, 3] that know no seams."""
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices, mesh.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, 2 * SEAM, True
    atlas.generate(pack_options=packing)
    origin, faces, uv = atlas[0]
    cut = Mesh(mesh.vertices[origin], faces.astype(np.int32))
    normals = vertex_normals(mesh)[torch.from_numpy(origin.astype(np.int64))]
    return cut, uv.astype(np.float32), normals


def _painted(mesh: Mesh, uv: np.ndarray, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Values [V, 3] of vertices, interpolated over the texture.

    Returns the texture [S, S, 3], and which of its pixels lie on the mesh, bool [S, S].
    """
    screen = F.pad(torch.from_numpy(uv) * 2 - 1, (0, 1), value=1.0)
    faces = torch.from_numpy(mesh.faces).long()
    corners = screen[faces]
    flipped = torch.linalg.det(corners) < 0  # a patch that lies on its face
    faces = torch.where(flipped[:, None], faces.flip(1), faces)
    images = neural_renderer.rasterize_rgbad(
        screen[faces][None],
        corner_textures(values[faces])[None],
        image_size=size,
        anti_aliasing=False,
        perspective=False,
    )
    rgb, alpha = images["rgb"], images["alpha"]
    assert rgb is not None and alpha is not None  # both are drawn by default
    return rgb[0].permute(1, 2, 0), alpha[0] > 0


def _dilated(image: Tensor, covered: Tensor) -> Tensor:
    """Let colors [S, S, 3] grow `SEAM` pixels beyond what is covered [S, S].

    Farther out lies their mean, which smaller copies of the texture then mix in.
    """
    colors, known = image.permute(2, 0, 1)[None], covered[None, None].float()
    mean = image[covered].mean(dim=0)[:, None, None]
    for _ in range(SEAM):
        share = F.avg_pool2d(known, 3, stride=1, padding=1)
        around = F.avg_pool2d(colors * known, 3, stride=1, padding=1) / share.clamp(min=1e-6)
        colors = torch.where(known > 0, colors, around)
        known = (share > 0).float()
    return torch.where(known > 0, colors, mean)[0].permute(1, 2, 0)
