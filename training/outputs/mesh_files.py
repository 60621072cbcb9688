"""Shapes as files: meshes for viewers and 3D tools, volumes of densities for ChimeraX.

All are written whole or not at all, and raise OSError where they cannot be.
"""

import os
from pathlib import Path

import mrcfile
import numpy as np
import trimesh
from torch import Tensor

from dnnlib import UserError, atomic_write
from training.outputs.meshes import Mesh

MESH_FORMATS = (".ply", ".obj", ".glb", ".stl")
VOLUME_FORMAT = ".mrc"


def save_mesh(path: str | os.PathLike, mesh: Mesh) -> None:
    """Write a mesh in the format of the file's extension; y is up, lengths are world units.

    Args:
        path: ends in .ply (binary), .obj, .glb or .stl (binary).
        mesh: not empty.

    Raises:
        UserError: for another extension.
    """
    path = Path(path)
    extension = path.suffix.lower()
    if extension not in MESH_FORMATS:
        raise UserError(f"{path}: mesh files end in {', '.join(MESH_FORMATS)}")
    # process=False: vertices and faces stay as they are, and in their order.
    shape = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    with atomic_write(path) as temporary:
        shape.export(temporary, file_type=extension[1:])


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
