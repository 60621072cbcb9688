"""Meshes look like renderings of the field they come from: on the network that is shipped."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dnnlib import UserError
from tests.helpers import tiny_config
from training.files.network_file import load_network
from training.networks.generator import Generator
from training.outputs.levels import best_level, silhouette_level
from training.outputs.mesh_colors import colored, vertex_normals
from training.outputs.mesh_files import save_mesh, srgb_to_linear
from training.outputs.meshes import Mesh, extract_mesh, find_surface, largest_part
from training.outputs.objects import Objects
from training.outputs.shading import render_mesh
from training.outputs.textures import textured

TOY = Path(__file__).parents[3] / "models/toy.safetensors"
DIRECTIONS = [[0.0, 0.0], [-40.0, 0.0], [40.0, 0.0], [20.0, 20.0], [-20.0, -15.0]]
PIXELS = 48


@pytest.fixture(scope="module")
def objects() -> Objects:
    return Objects.from_seeds(load_network(TOY).generator, [3], truncation=0.7)


@pytest.fixture(scope="module")
def mesh(objects) -> Mesh:
    level = silhouette_level(objects.generator, objects.planes).level
    surface = find_surface(objects.generator, objects.planes, 96, level).mesh
    return colored(objects.generator, objects.planes, largest_part(surface))


def worst_psnr(objects: Objects, mesh: Mesh) -> float:
    """Of five views, inside the mesh's silhouette, against the volume rendering."""
    generator = objects.generator
    cameras = generator.cam2world(generator.pose_from_degrees(torch.tensor(DIRECTIONS)))
    with torch.no_grad():
        volume = objects.render(cameras, resolution=PIXELS).image[0]
    found = []
    for camera, image in zip(cameras, volume, strict=True):
        rgb, _, alpha = render_mesh(mesh, camera, generator.intrinsics, PIXELS)
        difference = (rgb[0] - (image.clamp(-1, 1) + 1) / 2)[:, alpha[0] > 0.999]
        assert 0.1 < (alpha > 0.999).float().mean() < 0.9
        found.append(-10 * math.log10(difference.square().mean()))
    return min(found)


def linear(colors: np.ndarray) -> np.ndarray:
    return srgb_to_linear(colors).astype(int)


def test_a_colored_mesh_looks_like_the_volume_rendering(objects, mesh):
    assert worst_psnr(objects, mesh) >= 25
    swapped = mesh._replace(colors=mesh.colors[:, ::-1].copy())
    assert worst_psnr(objects, swapped) < 20


@pytest.mark.parametrize("extension", [".ply", ".obj", ".glb"])
def test_colors_survive_their_file(extension, mesh, tmp_path):
    path = tmp_path / f"head{extension}"
    save_mesh(path, mesh)
    read = trimesh.load(path, force="mesh", process=False, skip_materials=True)
    expected = linear(mesh.colors) if extension == ".glb" else mesh.colors
    found = np.asarray(read.visual.vertex_colors)[:, :3].astype(int)
    assert np.abs(found - expected).max() <= 1
    np.testing.assert_allclose(read.bounds, trimesh.Trimesh(*mesh[:2]).bounds, atol=1e-6)
    assert read.is_watertight and read.volume > 0  # outward
    assert read.bounds[1, 1] - read.bounds[0, 1] == max(read.extents)  # a head stands upright


def test_glb_is_shown_without_light_of_the_viewer(mesh, tmp_path):
    save_mesh(tmp_path / "head.glb", mesh)
    data = (tmp_path / "head.glb").read_bytes()
    tree = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    assert tree["meshes"][0]["primitives"][0]["material"] == 0
    assert "KHR_materials_unlit" in tree["materials"][0]["extensions"]
    assert tree["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert not any({"rotation", "matrix"} & set(node) for node in tree["nodes"])  # y is up


@pytest.fixture(scope="module")
def textured_mesh(objects, mesh):
    pytest.importorskip("xatlas", reason="textures need xatlas")
    pytest.importorskip("fast_simplification", reason="textures need fast-simplification")
    return textured(objects.generator, objects.planes, mesh, 512, 5000)


def colors_from_texture(read: trimesh.Trimesh, image) -> np.ndarray:
    """Colors of vertices, as a viewer would look them up."""
    pixels = np.asarray(image.convert("RGB"))
    column = (read.visual.uv[:, 0] * pixels.shape[1]).astype(int).clip(0, pixels.shape[1] - 1)
    row = ((1 - read.visual.uv[:, 1]) * pixels.shape[0]).astype(int).clip(0, pixels.shape[0] - 1)
    return pixels[row, column]


@pytest.mark.parametrize("extension", [".obj", ".glb"])
def test_a_texture_read_back_looks_like_the_volume_rendering(
    extension, objects, textured_mesh, tmp_path
):
    path = tmp_path / f"head{extension}"
    save_mesh(path, textured_mesh)
    read = trimesh.load(path, force="mesh", process=False)
    material = read.visual.material
    image = material.image if extension == ".obj" else material.baseColorTexture
    assert image.size == (512, 512)
    colors = colors_from_texture(read, image)
    found = Mesh(read.vertices.astype(np.float32), read.faces.astype(np.int32), colors)
    assert worst_psnr(objects, found) >= 25
    read.merge_vertices(merge_tex=True, merge_norm=True)
    assert read.is_watertight and read.volume > 0 and 4000 < len(read.faces) <= 5000
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


def test_the_best_level_parts_opaque_pixels_from_others():
    largest = torch.tensor([9.0, 1.0, 7.0, 3.0, -torch.inf])
    level, agreement = best_level(largest, torch.tensor([1.0, 0.0, 0.9, 0.1, 0.0]))
    assert level == pytest.approx(5.0) and agreement == pytest.approx(1.9 / 2.1)


def test_a_silhouette_at_the_found_level_covers_what_is_opaque(objects):
    generator = objects.generator
    level, agreement = silhouette_level(generator, objects.planes)
    mesh = find_surface(generator, objects.planes, 96, level).mesh
    camera = generator.cam2world(generator.pose_from_degrees(torch.tensor([[0.0, 0.0]])))
    with torch.no_grad():
        opacity = objects.render(camera, resolution=PIXELS).opacity[0, 0, 0]
    alpha = render_mesh(mesh, camera[0], generator.intrinsics, PIXELS, shaded=True).alpha[0]
    overlap = torch.minimum(alpha, opacity).sum() / torch.maximum(alpha, opacity).sum()
    assert overlap > 0.93 and agreement > 0.93


def test_an_empty_field_has_a_level():
    """Nothing fails where there is no surface to find."""
    torch.manual_seed(0)
    generator = Generator(tiny_config()).eval().requires_grad_(False)
    planes = torch.zeros(1, 3, 4, 16, 16)
    level, agreement = silhouette_level(generator, planes)
    assert math.isfinite(level) and 0 <= agreement <= 1


def ball(center: list[float], radius: float) -> torch.Tensor:
    axis = torch.linspace(-0.5, 0.5, 40)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return radius - (points - torch.tensor(center)).norm(dim=-1)


def test_the_largest_part_alone_is_kept():
    floaters = torch.maximum(ball([-0.1, 0, 0], 0.25), ball([0.35, 0.3, 0.3], 0.08))
    both, one = extract_mesh(floaters, 0, 1.0), extract_mesh(ball([-0.1, 0, 0], 0.25), 0, 1.0)
    kept = largest_part(both)
    assert len(both.faces) > len(kept.faces) == len(one.faces)
    np.testing.assert_allclose(kept.vertices, one.vertices, atol=1e-6)


def test_normals_point_outward():
    mesh = extract_mesh(ball([0, 0, 0], 0.3), 0, 1.0)
    radial = torch.nn.functional.normalize(torch.from_numpy(mesh.vertices), dim=-1)
    assert (vertex_normals(mesh) * radial).sum(dim=-1).min() > 0.95
