"""From a generator's field to a shape: a grid of densities, its level set as a mesh.

The grid covers the cube of side `box_warp` round the world's origin, its faces included:
density[i, j, k] lies at x_i, y_j, z_k, each running from -box_warp/2 to +box_warp/2.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import skimage.measure
import torch
import trimesh
from torch import Tensor
from tqdm import tqdm

from torch_utils.ops import triplane_render
from torch_utils.ops.triplane_render import FieldSamples, as_texels
from training.networks.generator import Generator
from training.outputs.coarse_to_fine import Field, SparseGrid, cells_to_march, sparse_grid

POINTS_AT_ONCE = 2**18  # bounds the memory of evaluating the field
PUBLISHED_LEVEL = 10  # where published networks have their surface


class Mesh(NamedTuple):
    """Triangles in world units.

    vertices: float32 [V, 3]. faces: int32 [F, 3], counter-clockwise as seen from outside.
    colors: of the vertices, uint8 [V, 3] in sRGB. No surface: V = F = 0.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None


EMPTY = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


def surface_level(density_scale: float) -> float:
    """The level at which matter is as opaque as at `PUBLISHED_LEVEL` with a scale of 1.

    density_scale: `RenderingConfig`'s. The result is a density before the renderer's softplus.
    """
    opaque = math.log1p(math.exp(PUBLISHED_LEVEL - 1)) / density_scale
    return 1 + opaque + math.log(-math.expm1(-opaque))  # the inverse of softplus(level - 1)


def point_field(
    generator: Generator, planes: Tensor, colors: int
) -> Callable[[Tensor], FieldSamples]:
    """The field of one object as a function of points [N, 3] in world units.

    It returns sigma [N, 1], before the renderer's softplus, and the first `colors` or more of the
    color channels [N, F], in main memory.

    Args:
        generator: the generator.
        planes: [1, 3, C, H, W].
        colors: how many channels of color are needed.
    """
    rendering = generator.config.rendering
    decoder = generator.decoder.effective()
    if planes.device.type == "cpu":  # where the native op takes any number of colors
        decoder = decoder._replace(w2=decoder.w2[: 1 + colors], b2=decoder.b2[: 1 + colors])
    texels = as_texels(planes)  # once for all parts

    @torch.no_grad()
    def field(points: Tensor) -> FieldSamples:
        parts = [
            triplane_render(
                texels,
                some.to(planes)[None],
                decoder,
                box_warp=rendering.box_warp,
                axes=rendering.plane_axes,
            )
            for some in points.split(POINTS_AT_ONCE)
        ]
        return FieldSamples(*(torch.cat(part, dim=1)[0].cpu() for part in zip(*parts, strict=True)))

    return field


def density_field(generator: Generator, planes: Tensor, resolution: int) -> Field:
    """Density, before the renderer's softplus, of one object at points of the grid.

    planes: [1, 3, C, H, W]. The field takes indices [N, 3] and returns float32 [N], both in main
    memory. It decodes no colors.
    """
    box_warp = generator.config.rendering.box_warp
    step = box_warp / (resolution - 1)
    field = point_field(generator, planes, colors=0)

    def on_grid(index: Tensor) -> Tensor:
        return field(index.float() * step - box_warp / 2).sigma[:, 0]

    return on_grid


def density_grid(
    generator: Generator, planes: Tensor, resolution: int, progress: bool = False
) -> Tensor:
    """Density, before the renderer's softplus, of one object on a grid of R points a side.

    Args:
        generator: the generator.
        planes: [1, 3, C, H, W].
        resolution: R.
        progress: show a bar on a terminal.

    Returns:
        float32 [R, R, R] in main memory; [i, j, k] lies at (x_i, y_j, z_k), each coordinate from
        -box_warp/2 to +box_warp/2 in world units.
    """
    field = density_field(generator, planes, resolution)
    density = torch.empty(resolution, resolution**2)
    all_points = torch.arange(resolution)
    for x, layer in enumerate(
        tqdm(density, desc="shape", leave=False, disable=None if progress else True)
    ):
        layer.copy_(field(torch.cartesian_prod(torch.tensor([x]), all_points, all_points)))
    return density.reshape((resolution,) * 3)


def has_surface(density: Tensor, level: float) -> bool:
    """Whether the density lies on both sides of the level."""
    return bool(density.min() < level < density.max())


def extract_mesh(density: Tensor, level: float, box_warp: float) -> Mesh:
    """The surface where the density falls to `level`, by marching cubes (Lewiner et al. 2003).

    density: [R, R, R], see `density_grid`. The mesh is closed: where an object leaves the
    cube, the cube's faces cut it off. Without a surface it is empty.
    """
    if not has_surface(density, level):
        return EMPTY
    return _marching_cubes(np.pad(density.numpy(), 1), level, density.max().item(), box_warp)


class Surface(NamedTuple):
    """A mesh from coarse to fine.

    search: how it was found. is_dense: the audit came upon surface that had been overlooked, and
    the dense grid was taken.
    """

    mesh: Mesh
    search: SparseGrid
    is_dense: bool


def find_surface(
    generator: Generator,
    planes: Tensor,
    resolution: int,
    level: float | None = None,
    progress: bool = False,
) -> Surface:
    """What `extract_mesh` finds in the dense grid, evaluated finely near the surface alone.

    See `coarse_to_fine` for what may be overlooked, and how likely. Memory: the volume and one byte
    per grid point. The same planes give the same mesh.

    Args:
        generator: the generator.
        planes: [1, 3, C, H, W], of one object.
        resolution: grid points a side.
        level: density at the surface, before the renderer's softplus; None: `surface_level`.
        progress: show a bar on a terminal.
    """
    if level is None:
        level = surface_level(generator.config.rendering.density_scale)
    box_warp = generator.config.rendering.box_warp
    field = density_field(generator, planes, resolution)
    grid = sparse_grid(field, resolution, level, torch.Generator().manual_seed(0))
    if grid.overlooked:
        grid = grid._replace(padded=np.empty((0, 0, 0), np.float32))  # to be freed
        mesh = extract_mesh(density_grid(generator, planes, resolution, progress), level, box_warp)
        return Surface(mesh, grid, is_dense=True)
    if not grid.lowest < level < grid.highest:
        return Surface(EMPTY, grid, is_dense=False)
    cells = cells_to_march(grid.active, resolution)
    mesh = _marching_cubes(grid.padded, level, grid.highest, box_warp, cells)
    return Surface(mesh, grid, is_dense=False)


def _marching_cubes(
    padded: np.ndarray,
    level: float,
    highest: float,
    box_warp: float,
    cells: np.ndarray | None = None,
) -> Mesh:
    """The surface of densities [R + 2, R + 2, R + 2], whose outer layer is overwritten.

    highest: the largest density. cells: bool, see `cells_to_march`; None for all.
    """
    # A layer of emptiness round the grid closes the surface, at most a hundredth of a cell outside.
    emptiness = level - 100 * (highest - level)
    for axis in range(3):
        np.moveaxis(padded, axis, 0)[[0, -1]] = emptiness
    corners, faces, _, _ = skimage.measure.marching_cubes(
        padded,
        level,
        gradient_direction="ascent",  # for scikit-image, which winds the other way
        allow_degenerate=False,
        mask=cells,
    )
    vertices = ((corners - 1) / (len(padded) - 3) - 0.5) * box_warp
    return _welded(Mesh(vertices.astype(np.float32), faces.astype(np.int32)))


def _welded(mesh: Mesh) -> Mesh:
    """The mesh with one vertex in each place, and no triangle that has two corners there.

    Rounding can bring two vertices together; programs that merge them on reading would find holes.
    """
    x, y, z = mesh.vertices.T.astype(np.float64)
    order = np.argsort(x + math.sqrt(2) * y + math.sqrt(3) * z)  # equal ones stand side by side
    ordered = mesh.vertices[order]
    is_new = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    if is_new.all():
        return mesh
    first = np.empty(len(order), np.int64)
    first[order] = order[is_new][np.cumsum(is_new) - 1]
    faces = first[mesh.faces]
    has_area = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    kept, faces = np.unique(faces[has_area], return_inverse=True)
    return Mesh(mesh.vertices[kept], faces.reshape(-1, 3).astype(np.int32))


def largest_part(mesh: Mesh) -> Mesh:
    """The connected part with the most faces; without colors, floaters, and inner surfaces."""
    if not len(mesh.faces):
        return mesh
    label = trimesh.graph.connected_component_labels(
        mesh.faces[:, [0, 1, 1, 2]].reshape(-1, 2), node_count=len(mesh.vertices)
    )
    part = label[mesh.faces[:, 0]]
    faces = mesh.faces[part == np.bincount(part).argmax()]
    kept, faces = np.unique(faces, return_inverse=True)
    return Mesh(mesh.vertices[kept], faces.reshape(-1, 3).astype(np.int32))
