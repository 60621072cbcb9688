"""Colors of surfaces: what the rendering of the field shows there.

A field has no surface: the color of a pixel comes from a depth of matter. So does the color of a
point here: short rays toward it, composited as in rendering (NeRF, eq. 3), from cameras on a ring
round the object, weighted by how squarely they face it. docs/meshes_and_videos.md compares this
with other ways.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils import ops
from torch_utils.images import to_uint8
from torch_utils.ops.triplane_render import FieldSamples
from training.config import RenderingConfig
from training.networks.generator import Generator
from training.outputs.meshes import Mesh, point_field

YAWS = (0.0, 60.0, 120.0, 180.0, 240.0, 300.0)  # degrees, of the ring's cameras
SMALLEST_COSINE = 0.3  # a camera that faces a point less squarely does not count
DEPTH = 0.04  # of matter that counts, in edges of the cube
SAMPLES = 3  # of a short ray

Field = Callable[[Tensor], FieldSamples]


def vertex_normals(mesh: Mesh) -> Tensor:
    """Unit normals [V, 3], outward: the mean of the faces', weighted by area."""
    vertices = torch.from_numpy(mesh.vertices)
    faces = torch.from_numpy(mesh.faces).long()
    first, second, third = vertices[faces].unbind(1)
    normals = torch.linalg.cross(second - first, third - first)
    total = torch.zeros_like(vertices)
    for corner in faces.unbind(1):
        total.index_add_(0, corner, normals)
    return F.normalize(total, dim=-1)


def colored(generator: Generator, planes: Tensor, mesh: Mesh) -> Mesh:
    """The mesh with colors of its vertices.

    planes: [1, 3, C, H, W], of the object whose surface the mesh is.
    """
    points = torch.from_numpy(mesh.vertices)
    colors = surface_colors(generator, planes, points, vertex_normals(mesh))
    return mesh._replace(colors=quantized(colors))


def quantized(colors: Tensor) -> np.ndarray:
    """[..., 3] in [0, 1] -> uint8."""
    return to_uint8(colors * 2 - 1).numpy()


@torch.no_grad()
def surface_colors(generator: Generator, planes: Tensor, points: Tensor, normals: Tensor) -> Tensor:
    """What renderings show at points of an object's surface.

    Args:
        generator: the generator.
        planes: [1, 3, C, H, W].
        points: [N, 3] in world units.
        normals: [N, 3], outward, of unit length.

    Returns:
        sRGB in [0, 1], [N, 3], in main memory.
    """
    rendering, field = generator.config.rendering, point_field(generator, planes, colors=3)
    total, weight = torch.zeros_like(points), torch.zeros(len(points), 1)
    for eye in _ring(generator):
        toward = F.normalize(eye - points, dim=-1)
        cosine = (toward * normals).sum(dim=-1)
        facing = (cosine > SMALLEST_COSINE).nonzero()[:, 0]
        colors = _composited(field, points[facing], toward[facing], rendering)
        squared = cosine[facing, None].square()
        total.index_add_(0, facing, squared * colors)
        weight.index_add_(0, facing, squared)
    unseen = (weight[:, 0] == 0).nonzero()[:, 0]  # the top and the bottom
    total[unseen] = _composited(field, points[unseen], normals[unseen], rendering)
    weight[unseen] = 1
    return (total / weight).clamp(0, 1)


def _ring(generator: Generator) -> Tensor:
    """Positions [C, 3] of cameras round the object, at the height of its middle."""
    directions = torch.tensor([(yaw, 0.0) for yaw in YAWS])
    pose = generator.pose_from_degrees(directions).to(generator.intrinsics)
    return generator.cam2world(pose)[:, :3, 3].cpu()


def _composited(field: Field, points: Tensor, toward: Tensor, config: RenderingConfig) -> Tensor:
    """Colors [N, 3] of rays that come from `toward` [N, 3] and begin at points [N, 3]."""
    depths = torch.linspace(0, DEPTH * config.box_warp, SAMPLES).expand(1, len(points), SAMPLES)
    along = ops.points_on_rays(points[None], -toward[None], depths)[0]
    sigma, color = (part.unflatten(0, (len(points), SAMPLES))[None] for part in field(along))
    color = color[..., :3]
    rays = ops.blend([FieldSamples(sigma, color)], [depths], density_scale=config.density_scale)
    little = 1e-6  # of opacity: the point's own color counts where there is hardly any matter
    return ((rays.color + little * color[:, :, 0]) / (rays.opacity + little))[0]
