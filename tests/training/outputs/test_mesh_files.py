"""Shapes as files, read back."""

import json
import struct

import mrcfile
import numpy as np
import pytest
import torch
import trimesh

from dnnlib import UserError
from training.outputs.mesh_files import MESH_FORMATS, save_mesh, save_mrc, srgb_to_linear
from training.outputs.meshes import Mesh, extract_mesh


def ball(resolution: int, box_warp: float = 1.0) -> torch.Tensor:
    """A density that is 10 at the distance 0.3 from a point beside the middle."""
    axis = torch.linspace(-box_warp / 2, box_warp / 2, resolution)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return 10 + 40 * (0.3 - (points - torch.tensor([0.05, -0.1, 0.02])).norm(dim=-1))


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return extract_mesh(ball(24), 10, 1.0)


@pytest.mark.parametrize("extension", MESH_FORMATS)
def test_mesh_survives_its_file(extension, mesh, tmp_path):
    save_mesh(tmp_path / f"ball{extension}", mesh)
    read = trimesh.load(tmp_path / f"ball{extension}", force="mesh")
    assert read.is_watertight and read.volume == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=0.03)
    np.testing.assert_allclose(read.center_mass, [0.05, -0.1, 0.02], atol=2e-3)
    assert len(read.faces) == len(mesh.faces)
    assert [path.name for path in tmp_path.iterdir()] == [f"ball{extension}"]


def test_ply_is_binary_and_exact(mesh, tmp_path):
    save_mesh(tmp_path / "ball.ply", mesh)
    assert b"format binary_little_endian" in (tmp_path / "ball.ply").read_bytes()[:60]
    read = trimesh.load(tmp_path / "ball.ply", process=False)
    np.testing.assert_array_equal(read.vertices.astype(np.float32), mesh.vertices)
    np.testing.assert_array_equal(read.faces, mesh.faces)


def test_unknown_formats_are_said(mesh, tmp_path):
    with pytest.raises(UserError, match="mesh files end in .ply, .obj, .glb, .stl"):
        save_mesh(tmp_path / "ball.fbx", mesh)
    assert not list(tmp_path.iterdir())


def test_mrc_holds_densities_where_they_lie_in_the_world(tmp_path):
    density = ball(17, 1.6)
    save_mrc(tmp_path / "ball.mrc", density, 1.6)
    assert mrcfile.validate(tmp_path / "ball.mrc")
    with mrcfile.open(tmp_path / "ball.mrc") as file:
        header, spacing = file.header, float(file.voxel_size.x)
        assert file.data.dtype == np.float32
        columns = header.mapc.item(), header.mapr.item(), header.maps.item()
        assert columns == (1, 2, 3)  # sections, rows, columns of the data are z, y, x
        assert file.data[4, 5, 6] == density[6, 5, 4]
        origin = [float(header.origin[axis]) for axis in "xyz"]
    assert spacing == pytest.approx(0.1) and origin == pytest.approx([-0.8] * 3)


def linear(colors: np.ndarray) -> np.ndarray:
    return srgb_to_linear(colors).astype(int)


@pytest.mark.parametrize("extension", [".ply", ".obj", ".glb"])
def test_colors_survive_their_file(extension, head_mesh, tmp_path):
    path = tmp_path / f"head{extension}"
    save_mesh(path, head_mesh)
    read = trimesh.load(path, force="mesh", process=False, skip_materials=True)
    expected = linear(head_mesh.colors) if extension == ".glb" else head_mesh.colors
    found = np.asarray(read.visual.vertex_colors)[:, :3].astype(int)
    assert np.abs(found - expected).max() <= 1
    np.testing.assert_allclose(read.bounds, trimesh.Trimesh(*head_mesh[:2]).bounds, atol=1e-6)
    assert read.is_watertight and read.volume > 0  # outward
    assert read.bounds[1, 1] - read.bounds[0, 1] == max(read.extents)  # a head stands upright


def test_glb_is_shown_without_light_of_the_viewer(head_mesh, tmp_path):
    save_mesh(tmp_path / "head.glb", head_mesh)
    data = (tmp_path / "head.glb").read_bytes()
    tree = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    assert tree["meshes"][0]["primitives"][0]["material"] == 0
    assert "KHR_materials_unlit" in tree["materials"][0]["extensions"]
    assert tree["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert not any({"rotation", "matrix"} & set(node) for node in tree["nodes"])  # y is up
