"""Textures of meshes, read back from files, look like renderings of the field."""

import numpy as np
import pytest
import trimesh

from dnnlib import UserError
from training.outputs.mesh_files import save_mesh
from training.outputs.meshes import Mesh
from training.outputs.textures import textured


@pytest.fixture(scope="module")
def textured_mesh(head, head_mesh):
    pytest.importorskip("xatlas", reason="textures need xatlas")
    pytest.importorskip("fast_simplification", reason="textures need fast-simplification")
    return textured(head.generator, head.planes, head_mesh, 512, 8000)


def colors_from_texture(read: trimesh.Trimesh, image) -> np.ndarray:
    """Colors of vertices, as a viewer would look them up."""
    pixels = np.asarray(image.convert("RGB"))
    column = (read.visual.uv[:, 0] * pixels.shape[1]).astype(int).clip(0, pixels.shape[1] - 1)
    row = ((1 - read.visual.uv[:, 1]) * pixels.shape[0]).astype(int).clip(0, pixels.shape[0] - 1)
    return pixels[row, column]


@pytest.mark.parametrize("extension", [".obj", ".glb"])
def test_a_texture_read_back_looks_like_the_volume_rendering(
    extension, head, textured_mesh, worst_psnr, tmp_path
):
    path = tmp_path / f"head{extension}"
    save_mesh(path, textured_mesh)
    read = trimesh.load(path, force="mesh", process=False)
    material = read.visual.material
    image = material.image if extension == ".obj" else material.baseColorTexture
    assert image.size == (512, 512)
    colors = colors_from_texture(read, image)
    found = Mesh(read.vertices.astype(np.float32), read.faces.astype(np.int32), colors)
    assert worst_psnr(head, found) >= 25
    read.merge_vertices(merge_tex=True, merge_norm=True)
    assert read.is_watertight and read.volume > 0 and 7000 < len(read.faces) <= 8000
    names = {".obj": {"head.obj", "head.mtl", "head_texture.png"}, ".glb": {"head.glb"}}
    assert {each.name for each in tmp_path.iterdir()} == names[extension]


def test_seams_show_no_background(textured_mesh):
    """Colors reach beyond the patches: around each vertex on a seam nothing is unpainted."""
    pixels = np.asarray(textured_mesh.image).astype(int)
    across = textured_mesh.uv * len(pixels) - 0.5
    column, row = across[:, 0].astype(int), len(pixels) - 1 - across[:, 1].astype(int)
    own = pixels[row.clip(0, 511), column.clip(0, 511)]
    for shift in (-1, 1):
        beside = pixels[row.clip(0, 511), (column + shift).clip(0, 511)]
        assert np.median(np.abs(beside - own).max(axis=1)) < 16
        assert np.abs(beside - own).max() < 160  # black would be further from hair and skin


def test_textures_are_refused_where_a_format_has_none(textured_mesh, tmp_path):
    with pytest.raises(UserError, match="meshes with textures end in .obj, .glb"):
        save_mesh(tmp_path / "head.ply", textured_mesh)
    assert not list(tmp_path.iterdir())
