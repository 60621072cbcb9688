"""Pictures and meshes of the inverse renderer."""

import numpy as np
import pytest
import torch

from training.cameras import intrinsics_from_focal
from training.geod import normals_of_depth
from training.networks.image_formation import Frustum
from training.networks.inverse_renderer import InverseRenderer
from training.outputs.figures import normals_from_depth
from training.outputs.geod_figures import (
    canonical_mesh,
    depth_images,
    normal_images,
    turned_images,
)


@pytest.fixture
def network() -> InverseRenderer:
    torch.manual_seed(0)
    return InverseRenderer(width=16).requires_grad_(False)


def test_normals_have_the_axes_of_the_generator_s_other_pictures():
    """Of the same distances, with the camera's own field of view, they are the same."""
    noise = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    distance = 2.7 + 0.1 * torch.nn.functional.interpolate(noise, size=64, mode="bicubic")
    intrinsics = intrinsics_from_focal(4.26)
    fov = 2 * np.degrees(np.arctan(0.5 / 4.26))
    ours = normal_images(normals_of_depth(distance, Frustum(fov=fov), intrinsics))
    theirs = normals_from_depth(distance, intrinsics)
    inner = (..., slice(2, -2), slice(2, -2))
    assert (ours[inner] * theirs[inner]).sum(dim=1).min() > 0.99


def test_depth_is_colored_by_nearness_and_white_where_empty():
    frustum = Frustum()
    depth = torch.full((1, 64, 64), frustum.near)
    depth[:, :, 32:], depth[:, :, 48:] = frustum.far, frustum.deepest
    images = depth_images(depth, frustum)
    near, far, empty = images[0, :, 0, 0], images[0, :, 0, 40], images[0, :, 0, 60]
    assert near[0] > 0.9 and near[2] < -0.5  # yellow
    assert far[0] < -0.4 and far[1] < -0.9  # violet
    assert (empty == 1).all()


def test_an_object_turned_by_nothing_is_seen_from_the_front(network):
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    turned = turned_images(network, image, (0.0, 60.0))
    assert turned.shape == (2, 2, 3, 64, 64)
    # Drawn half a pixel off: the mean of neighboring pixels.
    front = network(image).canonical_image[:2].clamp(-1, 1)
    halfway = torch.nn.functional.avg_pool2d(front, 2, stride=1)
    difference = (turned[:, 0, :, 5:58, 5:58] - halfway[..., 5:58, 5:58]).abs().mean()
    assert difference < 0.3 * (turned[:, 1, :, 5:58, 5:58] - halfway[..., 5:58, 5:58]).abs().mean()


def test_a_positive_yaw_shows_what_a_camera_to_the_right_sees(network):
    """The right half of the object comes toward the viewer and covers more of the picture."""
    blue_right = torch.full((1, 3, 64, 64), -1.0)
    blue_right[:, 2, :, 32:] = 1
    network.netD.forward = lambda image: _bulge()
    network.netA.forward = lambda image: blue_right
    blue = [
        (turn[2] - turn[0]).clamp(min=0).sum()
        for turn in turned_images(network, blue_right, (-40.0, 40.0))[0]
    ]
    assert blue[1] > blue[0]


def _bulge() -> torch.Tensor:
    index = torch.linspace(-1, 1, 64)
    return (4 * (index[:, None] ** 2 + index**2))[None, None]


def test_the_mesh_is_seen_from_the_front_and_runs_counter_clockwise(network):
    mesh = canonical_mesh(network, torch.zeros(1, 3, 64, 64))
    assert mesh.vertices.dtype == np.float32 and mesh.faces.dtype == np.int32
    assert mesh.faces.max() == len(mesh.vertices) - 1 and mesh.faces.min() == 0
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).mean() > 0.99
    assert mesh.vertices[0, 1] > 0 > mesh.vertices[-1, 1]  # the first row is the upper one
    depth = network.geometry(torch.zeros(1, 3, 64, 64)).canonical_depth[0, :, 2:-2]
    expected = network.frustum.center - depth.flatten().numpy()
    np.testing.assert_allclose(mesh.vertices[:, 2], expected, atol=1e-5)
