"""Wavefront .obj files, with the colours and images of their .mtl files."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import ops

_WRAPPINGS = ("REPEAT", "MIRRORED_REPEAT", "CLAMP_TO_EDGE", "CLAMP_TO_BORDER")
_ATLAS_CELL = 16  # pixels a side for each face


class _Material(NamedTuple):
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    image: Path | None = None


class _Geometry(NamedTuple):
    vertices: np.ndarray  # [V, 3]
    uvs: np.ndarray  # [N, 2]
    faces: np.ndarray  # [F, 3] indices of vertices
    face_uvs: np.ndarray  # [F, 3] indices of uvs, -1 for none
    face_materials: list[str | None]
    libraries: list[str]


def load_obj(
    filename_obj: str | Path,
    normalization: bool = True,
    texture_size: int = 4,
    load_texture: bool = False,
    texture_wrapping: str = "REPEAT",
    use_bilinear: bool = True,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
    """Read vertices [V, 3], faces [F, 3] (int32) and, if asked for, textures [F, T, T, T, 3].

    Polygons become fans of triangles.

    Args:
        normalization: centre the mesh, and scale it so that its largest extent spans [-1, 1].
        texture_size: T.
        load_texture: sample the materials' images (map_Kd) and colours (Kd); white without one.
        texture_wrapping: what lies outside an image: 'REPEAT', 'MIRRORED_REPEAT', 'CLAMP_TO_EDGE'
            or 'CLAMP_TO_BORDER' (black).
        use_bilinear: interpolate between the image's pixels; else take the nearest.

    Raises ValueError, with file and line, for what cannot be read.
    """
    if texture_wrapping not in _WRAPPINGS:
        raise ValueError(f"texture_wrapping must be one of {_WRAPPINGS}, not {texture_wrapping!r}")
    path = Path(filename_obj)
    geometry = _read_geometry(path)
    vertices = torch.from_numpy(geometry.vertices)
    faces = torch.from_numpy(geometry.faces)
    if normalization and len(vertices):
        vertices = _normalized(vertices)
    if not load_texture:
        return vertices, faces
    return (
        vertices,
        faces,
        _load_textures(path, geometry, texture_size, texture_wrapping, use_bilinear),
    )


def save_obj(
    filename: str | Path, vertices: Tensor, faces: Tensor, textures: Tensor | None = None
) -> None:
    """Write vertices [V, 3] and faces [F, 3]; textures [F, T, T, T, 3] as an atlas.

    The atlas, in which each face has a cell of its own, goes into a .png beside the file, and its
    name into a .mtl.
    """
    path = Path(filename)
    vertices, faces = vertices.detach().cpu(), faces.detach().cpu()
    lines = [f"v {x:.8g} {y:.8g} {z:.8g}" for x, y, z in vertices.tolist()]
    if textures is None:
        lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces.tolist()]
    else:
        image, uvs = _atlas(textures.detach().cpu().float())
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


def _read_geometry(path: Path) -> _Geometry:
    vertices, uvs, faces, face_uvs, face_materials, libraries = [], [], [], [], [], []
    material = None
    for number, line in enumerate(_lines(path), 1):
        keyword, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        try:
            if keyword == "v":
                vertices.append([float(x) for x in rest.split()[:3]])
            elif keyword == "vt":
                uvs.append([float(x) for x in rest.split()[:2]])
            elif keyword == "f":
                corners = [_corner(word, len(vertices), len(uvs)) for word in rest.split()]
                for i in range(1, len(corners) - 1):
                    triangle = corners[0], corners[i], corners[i + 1]
                    faces.append([vertex for vertex, _ in triangle])
                    face_uvs.append([uv for _, uv in triangle])
                    face_materials.append(material)
            elif keyword == "mtllib":
                libraries.append(rest)
            elif keyword == "usemtl":
                material = rest
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}:{number}: cannot read {line.strip()!r}: {error}") from error
    return _Geometry(
        _table(vertices, 3, np.float32, path),
        _table(uvs, 2, np.float32, path),
        _table(faces, 3, np.int32, path),
        _table(face_uvs, 3, np.int32, path),
        face_materials,
        libraries,
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def _corner(word: str, vertices: int, uvs: int) -> tuple[int, int]:
    """Indices from 0 of the vertex and of the texture coordinate (-1: none) in 'v/vt/vn'."""
    vertex, uv, *_ = (*word.split("/"), "")
    return _index(vertex, vertices), _index(uv, uvs) if uv else -1


def _index(word: str, count: int) -> int:
    """An index from 1, or one from -1 that counts back from the newest, as an index from 0."""
    given = int(word)
    index = given - 1 if given > 0 else count + given
    if given == 0 or not 0 <= index < count:
        raise IndexError(f"there is no element {given} among {count}")
    return index


def _table(rows: list[list], width: int, dtype: type, path: Path) -> np.ndarray:
    try:
        return np.asarray(rows, dtype).reshape(-1, width)
    except ValueError as error:
        raise ValueError(f"{path}: some lines have fewer than {width} numbers") from error


def _normalized(vertices: Tensor) -> Tensor:
    low, high = vertices.amin(0), vertices.amax(0)
    extent = (high - low).max()
    return (vertices - (low + high) / 2) * (2 / extent if extent > 0 else 1)


def _load_textures(
    path: Path, geometry: _Geometry, size: int, wrapping: str, bilinear: bool
) -> Tensor:
    materials = {}
    for library in geometry.libraries:
        materials.update(_read_materials(path.parent / library))
    textures = torch.ones(len(geometry.faces), size, size, size, 3)
    names = np.array([name or "" for name in geometry.face_materials])
    for name in np.unique(names):
        material = materials.get(name, _Material())
        mine = names == name
        textures[torch.from_numpy(mine)] = torch.tensor(material.color)
        mapped = mine & (geometry.face_uvs >= 0).all(1)
        if material.image is not None and mapped.any():
            uv = torch.from_numpy(geometry.uvs[geometry.face_uvs[mapped]])  # [N, 3, 2]
            places = torch.einsum("ijkv,nvc->nijkc", _cube_weights(size), uv)
            image = _read_image(material.image)
            textures[torch.from_numpy(mapped)] = _look_up(image, places, wrapping, bilinear)
    return textures


def _read_materials(path: Path) -> dict[str, _Material]:
    materials, name = {}, ""
    for number, line in enumerate(_lines(path), 1):
        keyword, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if keyword == "newmtl":
            name = rest
            materials[name] = _Material()
        elif keyword == "Kd":
            try:
                red, green, blue = (float(x) for x in rest.split()[:3])
            except ValueError as error:
                raise ValueError(f"{path}:{number}: cannot read {line.strip()!r}") from error
            materials[name] = materials.get(name, _Material())._replace(color=(red, green, blue))
        elif keyword == "map_Kd":
            file = rest.split()[-1] if rest.startswith("-") else rest  # options come first
            image = path.parent / file.replace("\\", "/")
            materials[name] = materials.get(name, _Material())._replace(image=image)
    return materials


def _read_image(path: Path) -> Tensor:
    """[H, W, 3] in [0, 1]."""
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255)
    except OSError as error:
        raise ValueError(f"cannot read the texture image {path}: {error}") from error


def _cube_weights(size: int) -> Tensor:
    """Barycentric weights of the texels of a cube, [T, T, T, 3].

    The indices of a texel are its weights x (T - 1). Few have weights that sum to 1; the others
    are scaled to, which keeps them within the face.
    """
    axis = torch.arange(size, dtype=torch.float32)
    weights = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp(min=1), 1 / 3)


def _look_up(image: Tensor, places: Tensor, wrapping: str, bilinear: bool) -> Tensor:
    """Colours [..., 3] of an image [H, W, 3] at texture coordinates [..., 2] (v runs up)."""
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


def _atlas(textures: Tensor) -> tuple[Image.Image, Tensor]:
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
