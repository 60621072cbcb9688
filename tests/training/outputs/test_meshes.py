"""From fields to meshes, on shapes that are known beforehand."""

import numpy as np
import pytest
import torch
import trimesh

from tests.helpers import tiny_config
from training.networks.generator import Generator
from training.outputs.meshes import (
    EMPTY,
    Mesh,
    density_grid,
    extract_mesh,
    has_surface,
    largest_part,
    surface_level,
)
from training.outputs.shading import shade

CENTER = (0.05, -0.1, 0.02)


def coordinates(resolution: int, box_warp: float) -> torch.Tensor:
    """[R, R, R, 3]: x, y, z of every grid point."""
    axis = torch.linspace(-box_warp / 2, box_warp / 2, resolution)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def ball(resolution: int, radius: float, box_warp: float, center=CENTER) -> torch.Tensor:
    """A density that is 10 at the distance `radius` from the center and falls outward."""
    offset = coordinates(resolution, box_warp) - torch.tensor(center)
    return 10 + 40 * (radius - offset.norm(dim=-1))


def outward_volume(mesh: Mesh) -> float:
    """Positive when the faces' normals point outward (divergence theorem)."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces].astype(np.float64), 1, 0)
    return np.einsum("ij,ij->", a, np.cross(b, c)) / 6


def euler_characteristic(mesh: Mesh) -> int:
    """Vertices - edges + faces; fails when an edge does not have exactly two faces."""
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    assert (uses == 2).all()
    return len(mesh.vertices) - len(edges) + len(mesh.faces)


def small_generator(**changes) -> Generator:
    torch.manual_seed(0)
    return Generator(tiny_config(**{"rendering__box_warp": 1.0} | changes))


@pytest.mark.parametrize("box_warp", [1.0, 1.6])
def test_ball_becomes_a_closed_sphere_in_world_units(box_warp):
    mesh = extract_mesh(ball(64, 0.3, box_warp), 10, box_warp)
    distance = np.linalg.norm(mesh.vertices - CENTER, axis=1)
    np.testing.assert_allclose(distance, 0.3, atol=0.002)
    assert euler_characteristic(mesh) == 2
    assert outward_volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=0.01)


def test_every_normal_points_outward():
    mesh = extract_mesh(ball(48, 0.3, 1.0), 10, 1.0)
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    outward = (a + b + c) / 3 - CENTER
    assert np.einsum("ij,ij->i", outward, np.cross(b - a, c - a)).min() > 0


def test_level_chooses_the_surface():
    mesh = extract_mesh(ball(48, 0.3, 1.0), 12, 1.0)  # 40 per unit: 2 more lie 0.05 further in
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - CENTER, axis=1), 0.25, atol=0.002)


def test_object_that_leaves_the_cube_is_cut_off_and_closed():
    mesh = extract_mesh(ball(48, 0.3, 1.0, center=(0.5, 0, 0)), 10, 1.0)
    assert euler_characteristic(mesh) == 2
    assert outward_volume(mesh) == pytest.approx(2 / 3 * np.pi * 0.3**3, rel=0.02)
    assert np.abs(mesh.vertices).max() == pytest.approx(0.5, abs=0.01 / 47)


def test_vertices_that_rounding_brings_together_leave_no_hole():
    """Densities so close to the level that edges are cut at one corner, in single precision."""
    density = ball(48, radius=0.3, box_warp=1.0)
    density = torch.where((density - 10).abs() < 0.2, 10 + 1e-6, density)
    mesh = extract_mesh(density, 10, 1.0)
    assert len(np.unique(mesh.vertices, axis=0)) == len(mesh.vertices)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=True).is_watertight


def test_grid_points_exactly_on_the_level_leave_no_needles():
    stepped = (ball(48, 0.3, 1.0) / 5).round() * 5
    mesh = extract_mesh(stepped, 10, 1.0)
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 0
    assert euler_characteristic(mesh) == 2


@pytest.mark.parametrize("scale", [0.5, 1, 5, 1e4])
def test_the_surface_is_as_opaque_at_any_scale_of_density(scale):
    assert surface_level(1) == pytest.approx(10)
    published = torch.nn.functional.softplus(torch.tensor(9.0))
    level = torch.tensor(surface_level(scale), dtype=torch.float64)
    density = scale * torch.nn.functional.softplus(level - 1)
    assert density.item() == pytest.approx(published.item(), rel=1e-6)


@pytest.mark.parametrize("level", [-1e3, 1e3])
def test_no_surface_gives_an_empty_mesh(level):
    density = ball(16, 0.3, 1.0)
    assert not has_surface(density, level) and has_surface(density, 10)
    mesh = extract_mesh(density, level, 1.0)
    assert mesh.vertices.shape == mesh.faces.shape == (0, 3)


def test_grid_holds_the_field_at_its_points(monkeypatch):
    monkeypatch.setattr("training.outputs.meshes.POINTS_AT_ONCE", 100)
    generator = small_generator(rendering__box_warp=1.6)
    planes = torch.randn(1, 3, 4, 16, 16)
    density = density_grid(generator, planes, 9)
    points = coordinates(9, 1.6).reshape(1, -1, 3)
    expected = generator.field(planes, points).sigma.reshape(9, 9, 9)
    assert density.std() > 0.01 and not density.requires_grad
    torch.testing.assert_close(density, expected)


def test_field_of_a_ball_becomes_its_mesh():
    """Planes that hold squared distances: those of x and y, x and z, z and y sum to 2 r^2."""
    generator = small_generator()
    texels = (torch.arange(32) + 0.5) / 32 - 0.5
    planes = torch.zeros(1, 3, 4, 32, 32)
    for plane, (across, down) in enumerate([(0, 1), (0, 2), (2, 1)]):
        squares = [(texels - CENTER[axis]) ** 2 for axis in (across, down)]
        planes[0, plane, 0] = squares[0] + squares[1][:, None]
    first, second = generator.decoder.net["0"], generator.decoder.net["2"]
    with torch.no_grad():
        for parameter in generator.decoder.parameters():
            parameter.zero_()
        first.weight[0, 0] = -60 / first.weight_gain  # h = 40 - 40 r^2, large: softplus(h) = h
        first.bias[0] = 40
        second.weight[0, 0] = 5 / second.weight_gain  # sigma = 200 (1 - r^2) + bias
        second.bias[0] = 10 - 200 * (1 - 0.25**2)
    density = density_grid(generator, planes, 64)
    center_mask = (coordinates(64, 1.0) - torch.tensor(CENTER)).norm(dim=-1) < 0.35
    mesh = extract_mesh(density.where(center_mask, 0), 10, 1.0)  # planes fade out at their border
    distance = np.linalg.norm(mesh.vertices - CENTER, axis=1)
    np.testing.assert_allclose(distance, 0.25, atol=0.003)
    assert outward_volume(mesh) > 0


def test_shaded_picture_shows_the_mesh_as_a_camera_does():
    """A ball, with small ones above and at its right as seen from +z; light from above right."""
    parts = [ball(48, 0.2, 1.0, c) for c in ((0, 0, 0), (0.3, 0, 0), (0, 0.3, 0))]
    density = torch.stack([parts[0], *(part - 5 for part in parts[1:])]).amax(dim=0)
    mesh = extract_mesh(density, 10, 1.0)
    picture = shade(mesh, torch.tensor([0.0, 0.0, 2.7]))
    assert picture.shape == (1, 3, 256, 256) and -1 <= picture.min() and picture.max() <= 1
    drawn = picture[0, 0] < 0.999
    rows, columns = drawn.any(dim=1).nonzero().flatten(), drawn.any(dim=0).nonzero().flatten()
    assert rows[0] > 0 and rows[-1] < 255 and columns[0] > 0 and columns[-1] < 255
    # The ball's middle lies at the lower left of what is drawn.
    widest = drawn.sum(dim=1).argmax().item(), drawn.sum(dim=0).argmax().item()
    assert widest[0] > (rows[0] + rows[-1]) / 2 and widest[1] < (columns[0] + columns[-1]) / 2
    inside = lambda x, y: picture[0, 0, widest[0] + y, widest[1] + x]  # noqa: E731
    assert inside(30, -30) > inside(-30, 30) + 0.1  # brighter above right than below left


def test_the_largest_part_alone_is_kept():
    large, small = ball(40, 0.25, 1.0, (-0.1, 0, 0)), ball(40, 0.08, 1.0, (0.35, 0.3, 0.3))
    both, one = extract_mesh(torch.maximum(large, small), 10, 1.0), extract_mesh(large, 10, 1.0)
    kept = largest_part(both)
    assert len(both.faces) > len(kept.faces) == len(one.faces)
    np.testing.assert_allclose(kept.vertices, one.vertices, atol=1e-6)
    assert not len(largest_part(EMPTY).faces)
