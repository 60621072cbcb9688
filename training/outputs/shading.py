"""Shaded pictures of meshes, by `neural_renderer`."""

import math

import torch
from torch import Tensor

import neural_renderer
from training.outputs.meshes import Mesh

VIEWING_ANGLE = 15  # degrees, half the field of view


def shade(mesh: Mesh, eye: Tensor) -> Tensor:
    """A picture [1, 3, 256, 256] in [-1, 1] of a mesh that is not empty: gray, on white.

    The mesh fills the picture whatever its size.

    Args:
        mesh: the mesh.
        eye: [3], the direction from the mesh's middle in which the camera stands.
    """
    vertices = torch.from_numpy(mesh.vertices)
    vertices = vertices - (vertices.amin(dim=0) + vertices.amax(dim=0)) / 2
    vertices = vertices / vertices.norm(dim=1).max()
    # The renderer's x grows to the left of a world whose axes are right-handed: mirror it.
    mirror = vertices.new_tensor([-1.0, 1.0, 1.0])
    eye = torch.nn.functional.normalize(eye.cpu(), dim=0) * mirror
    up = vertices.new_tensor([0.0, 1.0, 0.0])
    from_above_right = eye + 0.6 * (torch.linalg.cross(eye, up) + up)
    renderer = neural_renderer.Renderer(
        background_color=(1, 1, 1),
        camera_mode="look_at",
        viewing_angle=VIEWING_ANGLE,
        light_intensity_ambient=0.25,
        light_intensity_directional=0.7,
        light_direction=torch.nn.functional.normalize(from_above_right, dim=0),
    )
    renderer.eye = eye / math.sin(math.radians(VIEWING_ANGLE))  # the unit ball and no more
    faces = torch.from_numpy(mesh.faces).flip(1)  # a mirrored face runs the other way round
    return renderer((vertices * mirror)[None], faces[None], mode="rgb") * 2 - 1
