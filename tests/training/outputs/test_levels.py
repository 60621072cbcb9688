"""The level of a surface that looks like its rendering."""

import math

import pytest
import torch

from tests.helpers import tiny_config
from training.networks.generator import Generator
from training.outputs.levels import best_level, silhouette_level
from training.outputs.meshes import find_surface
from training.outputs.shading import render_mesh

PIXELS = 48


def test_the_best_level_parts_opaque_pixels_from_others():
    largest = torch.tensor([9.0, 1.0, 7.0, 3.0, -torch.inf])
    level, agreement = best_level(largest, torch.tensor([1.0, 0.0, 0.9, 0.1, 0.0]))
    assert level == pytest.approx(5.0) and agreement == pytest.approx(1.9 / 2.1)


def test_a_silhouette_at_the_found_level_covers_what_is_opaque(head):
    generator = head.generator
    level, agreement = silhouette_level(generator, head.planes)
    mesh = find_surface(generator, head.planes, 96, level).mesh
    camera = generator.cam2world(generator.pose_from_degrees(torch.tensor([[0.0, 0.0]])))
    with torch.no_grad():
        opacity = head.render(camera, resolution=PIXELS).opacity[0, 0, 0]
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
