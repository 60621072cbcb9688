"""Pictures and meshes of what the inverse renderer makes of images.

Normals are drawn with the axes of normal maps, x to the right, y up, z toward the viewer, as those
of the generator elsewhere; depth from yellow (near) to violet (far).
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from dnnlib import atomic_write
from torch_utils.images import resize
from training.geod import normals_of_depth
from training.networks.generator import Generator
from training.networks.image_formation import SIZE, Frustum, corner_colors, grid_faces
from training.networks.inverse_renderer import BORDER, InverseRenderer
from training.outputs.figures import AT_ONCE, TURNED_FACES, TURNS, tile
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
def turned_images(
    network: InverseRenderer, image: Tensor, yaws: tuple[float, ...] = TURNS
) -> Tensor:
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


@torch.no_grad()
def save_geod_pictures(
    folder: Path,
    tag: str,
    network: InverseRenderer,
    generator: Generator,
    z: Tensor,
    intrinsics: Tensor | None,
    real_images: Tensor,
) -> None:
    """Write geod_normals-, normals_ir-, normals_ir_real- and turned_real-TAG.png.

    Of generated images: the generator's normals as the loss takes them, and those that the inverse
    renderer finds. z: [N, z_dim]. intrinsics: [N, 3, 3], None: the preset's. real_images:
    [M, 3, R, R].
    """
    if intrinsics is None:
        intrinsics = generator.intrinsics.expand(len(z), 3, 3)
    lenses = intrinsics.split(AT_ONCE)
    views = [generator(some, lens) for some, lens in zip(z.split(AT_ONCE), lenses, strict=True)]
    views = [view.select(0) for view in views]
    pictures = {
        "geod_normals": [normals_of_depth(view.depth, network.frustum) for view in views],
        "normals_ir": [_own_normals(network, view.image) for view in views],
        "normals_ir_real": [_own_normals(network, some) for some in real_images.split(AT_ONCE)],
    }
    for name, normals in pictures.items():
        _save_grid(folder / f"{name}-{tag}.png", normal_images(torch.cat(normals)))
    turned = turned_images(network, resize(real_images[:TURNED_FACES], SIZE))
    _save_grid(folder / f"turned_real-{tag}.png", turned.flatten(0, 1), columns=len(TURNS))


def _own_normals(network: InverseRenderer, image: Tensor) -> Tensor:
    """Of the objects in images [B, 3, R, R], not of their mirror images."""
    return network.geometry(resize(image, SIZE)).normal.chunk(2)[0]


def _save_grid(path: Path, images: Tensor, columns: int | None = None) -> None:
    with atomic_write(path) as temporary:
        tile(images.cpu(), columns).save(temporary, format="png")
