"""Pictures and meshes of what the inverse renderer makes of images.

Normals are drawn with the axes of normal maps, x to the right, y up, z toward the viewer, as those
of the generator elsewhere; depth from yellow (near) to violet (far).
"""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from torch import Tensor

from training.networks.image_formation import SIZE, Frustum, corner_colors, grid_faces
from training.networks.inverse_renderer import BORDER, InverseRenderer
from training.outputs.meshes import Mesh


def normal_images(normal: Tensor) -> Tensor:
    """Normals [B, 64, 64, 3] that point away from the camera -> images [B, 3, 64, 64]."""
    return (normal * normal.new_tensor([-1.0, 1.0, 1.0])).permute(0, 3, 1, 2)


def depth_images(depth: Tensor, frustum: Frustum) -> Tensor:
    """Depth [B, 64, 64] -> images [B, 3, 64, 64]; white where it is empty."""
    nearness = ((frustum.far - depth) / (frustum.far - frustum.near)).clamp(0, 1)
    colors = matplotlib.colormaps["viridis"](nearness.cpu().numpy())[..., :3]
    images = torch.from_numpy(colors).permute(0, 3, 1, 2).to(depth) * 2 - 1
    return torch.where((depth < frustum.deepest)[:, None], images, 1)


@torch.no_grad()
def turned_images(network: InverseRenderer, image: Tensor, yaws: Sequence[float]) -> Tensor:
    """The object of each image [B, 3, 64, 64] from the front and turned, [B, V, 3, 64, 64].

    yaws: degrees; positive ones show the side that a camera to the right of the object sees.
    """
    parts, frustum = network(image), network.frustum
    count = len(image)
    points = frustum.points(parts.geometry.canonical_depth[:count])
    colors = corner_colors(parts.canonical_image[:count].clamp(-1, 1))
    turned = []
    for yaw in yaws:
        view = points.new_zeros(count, 6)
        view[:, 1] = math.radians(yaw)
        turned.append(frustum.render_colors(frustum.to_view(points, view), colors))
    return torch.stack(turned, dim=1)


@torch.no_grad()
def canonical_mesh(network: InverseRenderer, image: Tensor) -> Mesh:
    """The object in an image [1, 3, 64, 64], from the front, about its center of rotation.

    World units; x to the right, y up, z toward the viewer. Its edges, which hold no shape but the
    border's depth, are left out.
    """
    frustum = network.frustum
    depth = network.geometry(image).canonical_depth[0].double().cpu()
    points = frustum.points(depth) * depth.new_tensor([1.0, -1.0, -1.0])
    points[..., 2] += frustum.center
    column = torch.arange(SIZE * SIZE) % SIZE
    inner = (column >= BORDER) & (column < SIZE - BORDER)
    faces = grid_faces(depth.device)
    faces = faces[inner[faces].all(dim=1)]
    new_index = torch.cumsum(inner, dim=0) - 1
    vertices = points.flatten(0, 1)[inner]
    return Mesh(vertices.numpy().astype(np.float32), new_index[faces].numpy().astype(np.int32))
