"""Wavefront .obj files, with the colors and images of their .mtl files."""

from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor

from .texture_images import WRAPPINGS, atlas, cube_weights, look_up, read_image
from .wavefront import Geometry, Material, candidates, read_materials, read_obj


@overload
def load_obj(
    filename_obj: str | Path,
    normalization: bool = ...,
    texture_size: int = ...,
    load_texture: Literal[False] = ...,
    texture_wrapping: str = ...,
    use_bilinear: bool = ...,
) -> tuple[Tensor, Tensor]: ...


@overload
def load_obj(
    filename_obj: str | Path,
    normalization: bool = ...,
    texture_size: int = ...,
    *,
    load_texture: Literal[True],
    texture_wrapping: str = ...,
    use_bilinear: bool = ...,
) -> tuple[Tensor, Tensor, Tensor]: ...


@overload
def load_obj(
    filename_obj: str | Path,
    normalization: bool = ...,
    texture_size: int = ...,
    load_texture: bool = ...,
    texture_wrapping: str = ...,
    use_bilinear: bool = ...,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]: ...


def load_obj(
    filename_obj: str | Path,
    normalization: bool = True,
    texture_size: int = 4,
    load_texture: bool = False,
    texture_wrapping: str = "REPEAT",
    use_bilinear: bool = True,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
    """Read vertices, faces and, if asked for, textures.

    Polygons become fans of triangles. Vertices keep their first three numbers, texture coordinates
    their first two; groups, lines, points, normals and free-form surfaces are skipped. Of images
    the colors count, not the transparency.

    Args:
        filename_obj: the file; its .mtl files and their images are sought beside it.
        normalization: center the mesh, and scale it so that its largest extent spans [-1, 1].
        texture_size: T.
        load_texture: sample the materials' images (map_Kd, with the options -s and -o) or else
            their colors (Kd); white where there is no material, or none of its name.
        texture_wrapping: what lies outside an image: 'REPEAT', 'MIRRORED_REPEAT', 'CLAMP_TO_EDGE'
            or 'CLAMP_TO_BORDER' (black).
        use_bilinear: interpolate between the image's pixels; else take the nearest.

    Returns:
        Vertices [V, 3], faces [F, 3] (int32) and, with `load_texture`, textures [F, T, T, T, 3].

    Raises:
        ValueError: with file and line, for what cannot be read; for an .mtl file or an image that
            is needed and missing; for textures that do not fit into memory.
    """
    if texture_wrapping not in WRAPPINGS:
        raise ValueError(f"texture_wrapping must be one of {WRAPPINGS}, not {texture_wrapping!r}")
    if int(texture_size) != texture_size or texture_size < 1:
        raise ValueError(f"texture_size must be a whole number from 1, not {texture_size}")
    path = Path(filename_obj)
    geometry = read_obj(path)
    vertices = torch.from_numpy(geometry.vertices)
    faces = torch.from_numpy(geometry.faces)
    if normalization and len(vertices):
        vertices = _normalized(vertices)
    if not load_texture:
        return vertices, faces
    return (
        vertices,
        faces,
        _load_textures(geometry, int(texture_size), texture_wrapping, use_bilinear),
    )


def save_obj(
    filename: str | Path, vertices: Tensor, faces: Tensor, textures: Tensor | None = None
) -> None:
    """Write a mesh, and its textures as an atlas in which each face has a cell of its own.

    The atlas goes into a .png beside the file, and its name into a .mtl.

    Args:
        filename: of the .obj file.
        vertices: [V, 3].
        faces: [F, 3] indices of vertices.
        textures: [F, T, T, T, 3].
    """
    path = Path(filename)
    vertices, faces = vertices.detach().cpu(), faces.detach().cpu()
    lines = [f"v {x:.8g} {y:.8g} {z:.8g}" for x, y, z in vertices.tolist()]
    if textures is None:
        lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces.tolist()]
    else:
        image, uvs = atlas(textures.detach().cpu().float())
        image.save(path.with_suffix(".png"))
        path.with_suffix(".mtl").write_text(
            f"newmtl atlas\nKd 1 1 1\nmap_Kd {path.with_suffix('.png').name}\n", encoding="utf-8"
        )
        lines.insert(0, f"mtllib {path.with_suffix('.mtl').name}")
        lines += [f"vt {u:.8g} {v:.8g}" for u, v in uvs.reshape(-1, 2).tolist()]
        lines.append("usemtl atlas")
        lines += [
            f"f {a + 1}/{3 * i + 1} {b + 1}/{3 * i + 2} {c + 1}/{3 * i + 3}"
            for i, (a, b, c) in enumerate(faces.tolist())
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _normalized(vertices: Tensor) -> Tensor:
    low, high = vertices.amin(0), vertices.amax(0)
    extent = (high - low).max()
    return (vertices - (low + high) / 2) * (2 / extent if extent > 0 else 1)


def _load_textures(geometry: Geometry, size: int, wrapping: str, bilinear: bool) -> Tensor:
    materials: dict[str, Material] = {}
    for library in geometry.libraries:
        materials = read_materials(library) | materials  # of one name the first counts
    count = len(geometry.faces)
    try:
        textures = torch.ones(count, size, size, size, 3)
    except RuntimeError as error:
        raise ValueError(
            f"textures of {count} faces take {12 * count * size**3 / 2**30:.1f} GiB; "
            f"choose a texture_size below {size}"
        ) from error
    names, members = np.unique(np.array(geometry.face_materials, object), return_inverse=True)
    for number, name in enumerate(names):
        material = _material(materials, name)
        mine = members == number
        textures[torch.from_numpy(mine)] = torch.tensor(material.color)
        mapped = mine & (geometry.face_uvs >= 0).all(1)
        if material.texture is not None and mapped.any():
            texture = material.texture
            uv = torch.from_numpy(geometry.uvs[geometry.face_uvs[mapped]])  # [N, 3, 2]
            uv = uv * torch.tensor(texture.scale) + torch.tensor(texture.offset)
            places = torch.einsum("ijkv,nvc->nijkc", cube_weights(size), uv)
            colors = look_up(read_image(texture.path), places, wrapping, bilinear)
            textures[torch.from_numpy(mapped)] = colors
    return textures


def _material(materials: dict[str, Material], name: str) -> Material:
    found = (materials[spelling] for spelling in candidates(name) if spelling in materials)
    return next(found, Material())
