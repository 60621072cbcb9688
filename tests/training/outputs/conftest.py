"""A head of the shipped network, its colored mesh, and how alike two pictures of them are."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.files.network_file import load_network
from training.outputs.levels import silhouette_level
from training.outputs.mesh_colors import colored
from training.outputs.meshes import Mesh, find_surface, largest_part
from training.outputs.objects import Objects
from training.outputs.shading import render_mesh

TOY = Path(__file__).parents[3] / "models/toy.safetensors"
DIRECTIONS = [[0.0, 0.0], [-40.0, 0.0], [40.0, 0.0], [20.0, 20.0], [-20.0, -15.0]]
PIXELS = 48


@pytest.fixture(scope="session")
def head() -> Objects:
    return Objects.from_seeds(load_network(TOY).generator, [3], truncation=0.7)


@pytest.fixture(scope="session")
def head_mesh(head) -> Mesh:
    level = silhouette_level(head.generator, head.planes).level
    surface = find_surface(head.generator, head.planes, 96, level).mesh
    return colored(head.generator, head.planes, largest_part(surface))


@pytest.fixture(scope="session")
def worst_psnr() -> Callable[[Objects, Mesh], float]:
    """The function below."""
    return _worst_psnr


def _worst_psnr(objects: Objects, mesh: Mesh) -> float:
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
