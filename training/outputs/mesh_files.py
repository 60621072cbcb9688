"""Shapes as files: meshes for viewers and 3D tools, volumes of densities for ChimeraX.

In all of them y is up, as glTF wants it, lengths are world units, and faces run counter-clockwise
as seen from outside. All are written whole or not at all, and raise OSError where they cannot be.
"""

import io
import os
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import trimesh
from PIL import Image
from torch import Tensor
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.obj import export_obj
from trimesh.visual.material import PBRMaterial, SimpleMaterial
from trimesh.visual.texture import TextureVisuals

from dnnlib import UserError, atomic_write
from training.outputs.meshes import Mesh
from training.outputs.textures import TexturedMesh

MESH_FORMATS = (".ply", ".obj", ".glb", ".stl")
TEXTURE_FORMATS = (".obj", ".glb")
VOLUME_FORMAT = ".mrc"


def save_mesh(path: str | os.PathLike, mesh: Mesh | TexturedMesh) -> None:
    """Write a mesh in the format of the file's extension.

    NAME.obj with a texture has NAME.mtl and NAME_texture.png beside it. An .stl has no colors.

    Args:
        path: ends in .ply (binary), .obj, .glb or .stl (binary).
        mesh: not empty.

    Raises:
        UserError: for another extension, or for a texture where the format has none.
    """
    path = Path(path)
    extension = path.suffix.lower()
    formats = TEXTURE_FORMATS if isinstance(mesh, TexturedMesh) else MESH_FORMATS
    if extension not in formats:
        kind = "meshes with textures" if isinstance(mesh, TexturedMesh) else "mesh files"
        raise UserError(f"{path}: {kind} end in {', '.join(formats)}")
    for name, data in _encoded(path, extension, mesh).items():
        with atomic_write(path.with_name(name)) as temporary:
            temporary.write_bytes(data)


def _encoded(path: Path, extension: str, mesh: Mesh | TexturedMesh) -> dict[str, bytes]:
    """The files by their names; the one that refers to the others comes last."""
    if extension == ".obj":
        return _encoded_obj(path, mesh)
    if extension == ".glb":
        return {path.name: _encoded_glb(mesh)}
    assert isinstance(mesh, Mesh)
    encoded = io.BytesIO()
    _shape(mesh).export(encoded, file_type=extension[1:])
    return {path.name: encoded.getvalue()}


def _encoded_obj(path: Path, mesh: Mesh | TexturedMesh) -> dict[str, bytes]:
    header = "pof3d; y is up"
    if isinstance(mesh, Mesh):
        return {path.name: str(export_obj(_shape(mesh), header=header)).encode()}
    material = SimpleMaterial(
        image=mesh.image, ambient=[255] * 3, diffuse=[255] * 3, specular=[0] * 3
    )
    material.name = f"{path.stem}_texture"
    shape = _shape(mesh.mesh)
    shape.visual = TextureVisuals(uv=mesh.uv, material=material)
    text, others = export_obj(
        shape, return_texture=True, mtl_name=f"{path.stem}.mtl", header=header
    )
    return others | {path.name: text.encode()}


def _encoded_glb(mesh: Mesh | TexturedMesh) -> bytes:
    if isinstance(mesh, Mesh):
        colors = None if mesh.colors is None else srgb_to_linear(mesh.colors)
        shape = _shape(mesh._replace(colors=colors))
    else:
        shape = _shape(mesh.mesh)
        material = PBRMaterial(baseColorTexture=_as_png(mesh.image))
        shape.visual = TextureVisuals(uv=mesh.uv, material=material)
    has_colors = isinstance(mesh, TexturedMesh) or mesh.colors is not None
    return export_glb(
        trimesh.Scene(shape),
        include_normals=not has_colors,
        tree_postprocessor=_unlit if has_colors else None,
    )


def _unlit(tree: dict[str, Any]) -> None:
    """Say in glTF's tree that colors include their light.

    Viewers that know the extension show them as they are, others as those of a dull surface.
    """
    tree.setdefault("materials", [{"pbrMetallicRoughness": {}}])
    for material in tree["materials"]:
        material["pbrMetallicRoughness"] |= {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        material["extensions"] = {"KHR_materials_unlit": {}}
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "KHR_materials_unlit"]


def _shape(mesh: Mesh) -> trimesh.Trimesh:
    # process=False: vertices and faces stay as they are, and in their order.
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=mesh.colors, process=False)


def _as_png(image: Image.Image) -> Image.Image:
    """The image with the format in which trimesh embeds it."""
    encoded = io.BytesIO()
    image.save(encoded, format="png")
    return Image.open(encoded)


def srgb_to_linear(colors: np.ndarray) -> np.ndarray:
    """uint8 -> uint8: glTF's colors of vertices are linear, unlike its textures (IEC 61966-2-1)."""
    value = colors / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.round(linear * 255).astype(np.uint8)


def save_mrc(path: str | os.PathLike, density: Tensor, box_warp: float) -> None:
    """Write densities [R, R, R] as an MRC volume (Cheng et al. 2015), which ChimeraX opens.

    Voxel size and origin are set, so that a surface drawn there lies in world units.
    """
    data = density.permute(2, 1, 0).contiguous().numpy()  # x runs fastest in MRC
    with atomic_write(Path(path)) as temporary:
        with mrcfile.new(temporary, overwrite=True) as file:
            file.set_data(data)
            file.voxel_size = box_warp / (len(density) - 1)
            file.header.origin = np.rec.array((-box_warp / 2,) * 3, dtype=file.header.origin.dtype)
