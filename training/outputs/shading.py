"""Pictures of meshes, by `neural_renderer`: shaded ones, and ones in their own colors."""

import math

import torch
from torch import Tensor

import neural_renderer
from neural_renderer.renderer import Rendering
from training.outputs.meshes import Mesh

VIEWING_ANGLE = 15  # degrees, half the field of view
AMBIENT, DIRECTIONAL = 0.25, 0.7  # light on shaded pictures
WHITE = (1.0, 1.0, 1.0)


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
        background_color=WHITE,
        camera_mode="look_at",
        viewing_angle=VIEWING_ANGLE,
        light_intensity_ambient=AMBIENT,
        light_intensity_directional=DIRECTIONAL,
        light_direction=torch.nn.functional.normalize(from_above_right, dim=0),
    )
    renderer.eye = eye / math.sin(math.radians(VIEWING_ANGLE))  # the unit ball and no more
    faces = torch.from_numpy(mesh.faces).flip(1)  # a mirrored face runs the other way round
    return renderer((vertices * mirror)[None], faces[None], mode="rgb") * 2 - 1


def render_mesh(
    mesh: Mesh, cam2world: Tensor, intrinsics: Tensor, size: int, *, shaded: bool = False
) -> Rendering:
    """A mesh as the camera of a volume rendering sees it.

    Args:
        mesh: not empty.
        cam2world: [4, 4]; see `training.cameras`.
        intrinsics: [3, 3], normalized by image size.
        size: pixels a side.
        shaded: gray, lit from above the camera's right; else the vertices' own colors, which must
            be there, without light.

    Returns:
        rgb [1, 3, S, S] in [0, 1], on white; depth and alpha [1, S, S].
    """
    world2cam = torch.linalg.inv(cam2world.cpu())[None]
    right, down, forward = cam2world[:3, :3].cpu().unbind(1)
    renderer = neural_renderer.Renderer(
        image_size=size,
        fill_back=False,
        background_color=WHITE,
        light_intensity_ambient=AMBIENT if shaded else 1.0,
        light_intensity_directional=DIRECTIONAL if shaded else 0.0,
        # Its normals point inward, for faces that run counter-clockwise seen from outside.
        light_direction=-torch.nn.functional.normalize(0.6 * (right - down) - forward, dim=0),
        K=intrinsics.cpu()[None],
        R=world2cam[:, :3, :3],
        t=world2cam[:, None, :3, 3],
        orig_size=1,
    )
    vertices = torch.from_numpy(mesh.vertices)[None]
    faces = torch.from_numpy(mesh.faces).long()
    if shaded:
        return renderer.render(vertices, faces[None])
    if mesh.colors is None:
        raise ValueError("a mesh without colors can only be shaded")
    colors = torch.from_numpy(mesh.colors)[faces].float() / 255
    return renderer.render(vertices, faces[None], corner_textures(colors)[None])


def corner_textures(values: Tensor) -> Tensor:
    """Textures [F, 2, 2, 2, C] that interpolate values [F, 3, C] at the corners of faces.

    The renderer's textures are cubes, looked up at barycentric weights: a linear function of these
    is interpolated exactly.
    """
    weights = torch.tensor([0.0, 1.0])
    cube = torch.cartesian_prod(weights, weights, weights)  # [8, 3]
    return torch.einsum("tv,fvc->ftc", cube, values).unflatten(1, (2, 2, 2))
