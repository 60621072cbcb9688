"""The surface found from coarse to fine is that of the dense grid, or the audit says so."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tests.helpers import tiny_config
from torch_utils.ops import triplane_render
from torch_utils.ops.triplane_render import DecoderWeights
from training.networks.generator import Generator
from training.outputs import coarse_to_fine
from training.outputs.coarse_to_fine import SparseGrid, sparse_grid
from training.outputs.meshes import Mesh, extract_mesh, find_surface

LEVEL = 10.0
TRAINED = Path(__file__).parents[2] / "data/trained_field.npz"


def components(mesh: Mesh) -> int:
    a, b, c = mesh.faces.T
    edges = np.concatenate([a, b]), np.concatenate([b, c])
    count = len(mesh.vertices)
    return connected_components(coo_array((np.ones(len(edges[0])), edges), (count, count)))[0]


def assert_same_surface(mesh: Mesh, expected: Mesh, voxel: float) -> None:
    """Each vertex of one lies within a tenth of a voxel of one of the other; as many components."""
    for one, other in ((mesh, expected), (expected, mesh)):
        assert cKDTree(one.vertices).query(other.vertices)[0].max() < 0.1 * voxel
    assert components(mesh) == components(expected)
    assert len(mesh.faces) == len(expected.faces)


def use_density(monkeypatch, density: torch.Tensor) -> Generator:
    """A generator whose field is a density [R, R, R] known at the grid's points."""
    monkeypatch.setattr(
        "training.outputs.meshes.density_field",
        lambda *_: lambda index: density[index.unbind(-1)].clone(),
    )
    return Generator(tiny_config(rendering__box_warp=1.0))


def grid(resolution: int) -> torch.Tensor:
    """[R, R, R, 3] in [-0.5, 0.5]."""
    axis = torch.linspace(-0.5, 0.5, resolution)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def waves(resolution: int, seed: int, cycles: int = 5) -> torch.Tensor:
    """Noise of at most `cycles` periods per side of the cube, of about unit size."""
    random = torch.Generator().manual_seed(seed)
    frequencies = cycles * (2 * torch.rand(40, 3, generator=random) - 1)
    phases = 2 * torch.pi * torch.rand(40, generator=random)
    sum_of_waves = torch.zeros((resolution,) * 3)
    for frequency, phase in zip(frequencies, phases, strict=True):
        sum_of_waves += torch.cos(2 * torch.pi * grid(resolution) @ frequency + phase)
    return sum_of_waves / 20**0.5


@pytest.mark.parametrize("resolution", [2, 3, 5, 6, 32, 65, 82])
@pytest.mark.parametrize("seed", [0, 1])
def test_band_limited_fields(monkeypatch, resolution, seed):
    """Surface everywhere, that leaves the cube; blocks that are cut short at its end."""
    density = LEVEL + waves(resolution, seed)
    surface = find_surface(use_density(monkeypatch, density), None, resolution, LEVEL)
    expected = extract_mesh(density, LEVEL, 1.0)
    assert len(expected.faces) > 0
    assert_same_surface(surface.mesh, expected, 1 / (resolution - 1))


def test_a_bumpy_ball_takes_few_evaluations(monkeypatch):
    resolution = 97
    density = LEVEL + 40 * (0.3 - grid(resolution).norm(dim=-1)) + 0.3 * waves(resolution, 2)
    surface = find_surface(use_density(monkeypatch, density), None, resolution, LEVEL)
    expected = extract_mesh(density, LEVEL, 1.0)
    assert not surface.is_dense and surface.search.evaluations < 0.25 * resolution**3
    assert_same_surface(surface.mesh, expected, 1 / (resolution - 1))


def test_what_continues_is_followed_where_the_corners_see_nothing(monkeypatch):
    """A ball, and a rod too thin for the corners of blocks, which sticks in it."""
    x, y, z = grid(65).unbind(-1)
    rod = torch.where(z > 0, 0.015 - torch.hypot(x - 1.5 / 64, y - 1.5 / 64), -1.0)
    density = LEVEL + 40 * torch.maximum(0.2 - grid(65).norm(dim=-1), rod)
    monkeypatch.setattr(coarse_to_fine, "AUDITS", 0)
    surface = find_surface(use_density(monkeypatch, density), None, 65, LEVEL)
    assert surface.mesh.vertices[:, 2].max() == pytest.approx(0.5, abs=1e-3)
    assert_same_surface(surface.mesh, extract_mesh(density, LEVEL, 1.0), 1 / 64)


@functools.cache
def hidden_ball() -> tuple[torch.Tensor, int]:
    """A field that is flat but for a ball of radius 1.5 cells in the middle of a block, of 64^3
    cells; and how many grid points the ball holds."""
    density = torch.full((65,) * 3, LEVEL - 5)
    distance = torch.linalg.vector_norm(grid(65) * 64 + 32 - torch.tensor([22.0, 30, 42]), dim=-1)
    density[distance < 1.6] = LEVEL + 5
    return density, int((distance < 1.6).sum())


def search(density: torch.Tensor, seed: int) -> SparseGrid:
    random = torch.Generator().manual_seed(seed)
    return sparse_grid(lambda index: density[index.unbind(-1)], len(density), LEVEL, random)


@pytest.mark.parametrize("audits", [1, 3])
def test_audit_finds_what_the_corners_miss_as_often_as_promised(monkeypatch, audits):
    monkeypatch.setattr(coarse_to_fine, "AUDITS", audits)
    density, points = hidden_ball()
    found = [search(density, seed).overlooked for seed in range(300)]
    promised = 1 - (1 - points / 63) ** audits
    assert points == 19 and not search(density, 0).active.any()
    error = (promised * (1 - promised) / 300) ** 0.5
    assert np.mean(found) == pytest.approx(promised, abs=3 * error)


def test_found_by_the_audit_it_is_taken_from_the_dense_grid(monkeypatch):
    density, _ = hidden_ball()
    monkeypatch.setattr(coarse_to_fine, "AUDITS", 30)
    surface = find_surface(use_density(monkeypatch, density), None, 65, LEVEL)
    assert surface.is_dense and components(surface.mesh) == 1
    assert_same_surface(surface.mesh, extract_mesh(density, LEVEL, 1.0), 1 / 64)


@pytest.mark.parametrize("level", [-1e6, 1e6])
def test_no_surface_gives_an_empty_mesh(monkeypatch, level):
    surface = find_surface(use_density(monkeypatch, waves(33, 0)), None, 33, level)
    assert len(surface.mesh.faces) == 0 and not surface.is_dense
    assert not surface.search.lowest < level < surface.search.highest


def test_evaluates_each_point_of_marked_blocks_once():
    """Except that the audit may hit one again."""
    asked = []

    def field(index: torch.Tensor) -> torch.Tensor:
        asked.append(index)
        return LEVEL + 40 * (0.3 - ((index / 64 - 0.5).norm(dim=-1)))

    grid = sparse_grid(field, 65, LEVEL, torch.Generator())
    corners_and_fine = torch.cat(asked)[: -int((~grid.active).sum()) * coarse_to_fine.AUDITS]
    assert len(corners_and_fine) == len(corners_and_fine.unique(dim=0))


@pytest.mark.parametrize("level", [10, 0, 30])
def test_trained_field(monkeypatch, level):
    """A head by the toy preset after 8 kimg (planes in half precision), with a neck and fragments
    at the walls."""
    with np.load(TRAINED) as file:
        planes, *decoder = (torch.from_numpy(file[name]).float() for name in file)
    sigma = triplane_render(
        planes, grid(129).reshape(1, -1, 3), DecoderWeights(*decoder), box_warp=1.0
    ).sigma
    density = sigma.reshape(129, 129, 129)
    surface = find_surface(use_density(monkeypatch, density), None, 129, level)
    expected = extract_mesh(density, level, 1.0)
    assert components(expected) > 1
    assert not surface.is_dense and surface.search.evaluations < 0.15 * 129**3
    assert_same_surface(surface.mesh, expected, 1 / 128)
