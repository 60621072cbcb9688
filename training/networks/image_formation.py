"""How the inverse renderer forms images: objects are depth maps that turn in front of a pinhole.

Wu et al., "Unsupervised Learning of Probably Symmetric Deformable 3D Objects from Images in the
Wild" (Unsup3D, CVPR 2020), section 3; depth is rendered as in Kato et al., "Neural 3D Mesh
Renderer" (CVPR 2018). Camera axes are OpenCV's: x right, y down, z forward; lengths in world
units.

Images are `SIZE` pixels wide. Depth maps hold depths at whole pixel indices, the first and the last
of which lie on the edges of the field of view. The rasterizer draws at pixel centers, half a pixel
off, and `grid_sample` expects -1 and 1 at edges of pixels, not at the outermost indices. Published
weights were trained with both.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dnnlib import UserError
from neural_renderer import rasterize, rasterize_depth, vertices_to_faces
from torch_utils.devices import constant
from training.config import Config

SIZE = 64  # pixels
PUBLISHED_FOV = 18.837  # degrees

_NEAR_PLANE, _FAR_PLANE = 0.1, 100.0  # of the rasterizer; the latter is the background's depth
_SMALLEST_Z = 1e-6
# The published projection adds this to z. It can move an edge across the center of a sub-pixel, and
# an optimizer amplifies that.
_PUBLISHED_EPS = 1e-9
_NORMAL_EPS = 1e-7


@dataclass(frozen=True)
class Frustum:
    """The camera of the inverse renderer, and the range of depths that its objects fill.

    near, far: world units. fov: degrees, from the left edge of the image to its right edge.
    Raises UserError if depths do not lie well within the rasterizer's range.
    """

    near: float = 2.25
    far: float = 3.3
    fov: float = PUBLISHED_FOV

    def __post_init__(self) -> None:
        if not 0 < self.fov < 180:
            raise UserError(f"a field of view must lie between 0 and 180 degrees, not {self.fov}")
        # Four sub-pixels are averaged: one of the background must take a pixel beyond `deepest`.
        fits = _NEAR_PLANE < self.shallowest and self.deepest < _FAR_PLANE / 4
        if not (self.near < self.far and fits):
            raise UserError(
                f"GeoD's inverse renderer cannot work with depths from {self.near} to {self.far}: "
                f"with half the range added at both ends they must lie between {_NEAR_PLANE} and "
                f"{_FAR_PLANE / 4:.0f}; GeoD is meant for faces (presets ffhq, cats)"
            )

    @property
    def center(self) -> float:
        """The depth at which objects have their center of rotation."""
        return (self.near + self.far) / 2

    @property
    def border(self) -> float:
        """The depth of an object's left and right edges."""
        return 0.7 * self.far + 0.3 * self.near

    @property
    def shallowest(self) -> float:
        """The smallest depth that is told apart when an object has turned."""
        return self.near - (self.far - self.near) / 2

    @property
    def deepest(self) -> float:
        """The largest one; what is rendered at this depth counts as empty."""
        return self.far + (self.far - self.near) / 2

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return (SIZE - 1) / 2 / math.tan(math.radians(self.fov) / 2)

    def points(self, depth: Tensor) -> Tensor:
        """depth: [..., 64, 64] -> points [..., 64, 64, 3] in the camera's space."""
        index = torch.arange(SIZE, dtype=depth.dtype, device=depth.device)
        slope = (index - (SIZE - 1) / 2) / self.focal
        return torch.stack([slope * depth, slope[:, None] * depth, depth], dim=-1)

    def project(self, points: Tensor) -> Tensor:
        """points: [..., 3] -> (column, row) indices [..., 2], not whole numbers."""
        z = points[..., 2:]
        z = torch.where(z.abs() < _SMALLEST_Z, _SMALLEST_Z, z)
        return points[..., :2] / z * self.focal + (SIZE - 1) / 2

    def to_view(self, points: Tensor, view: Tensor) -> Tensor:
        """Canonical points p [B, 64, 64, 3] as they lie before the camera: R (p - c) + c + t.

        view: [B, 6], rotations about x, y, z in radians, applied in this order, and the shift t.
        """
        center = self._center(points)
        turned = (points - center) @ rotation_matrix(view[:, :3]).mT[:, None]
        return turned + center + view[:, None, None, 3:]

    def from_view(self, points: Tensor, view: Tensor) -> Tensor:
        """The inverse of `to_view`."""
        center = self._center(points)
        shifted = points - view[:, None, None, 3:] - center
        return shifted @ rotation_matrix(view[:, :3])[:, None] + center

    def depth_from_view(self, depth: Tensor, view: Tensor) -> Tensor:
        """Canonical depth [B, 64, 64] -> the depth that is seen from `view` [B, 6], [B, 64, 64].

        Clamped to [shallowest, deepest]; `deepest` itself stands for emptiness. Gradients: to both,
        but not of what is covered.
        """
        rendered = self.render_depth(self.to_view(self.points(depth), view))
        return rendered.clamp(self.shallowest, self.deepest)

    def sampling_grid(self, depth: Tensor, view: Tensor) -> Tensor:
        """Where the canonical image shows what is seen from `view`.

        depth: [B, 64, 64], seen from the view [B, 6]. Returns (x, y) [B, 64, 64, 2], which are -1
        and 1 at the first and the last index.
        """
        indices = self.project(self.from_view(self.points(depth), view))
        return indices / (SIZE - 1) * 2 - 1

    def render_depth(self, points: Tensor) -> Tensor:
        """The mesh through points [B, 64, 64, 3] -> depth [B, 64, 64], 100 where it is empty.

        Averages over 2 x 2 sub-pixels.
        """
        return rasterize_depth(self._triangles(points), SIZE, near=_NEAR_PLANE, far=_FAR_PLANE)

    def render_colors(self, points: Tensor, colors: Tensor) -> Tensor:
        """The mesh through points [B, 64, 64, 3] as an image [B, 3, 64, 64] on white, in [-1, 1].

        colors: [B, F, 3, 3], for each corner of `grid_faces`, see `corner_colors`.
        """
        textures = _linear_textures(torch.cat([colors, colors.flip(2)], dim=1))
        image = rasterize(
            self._triangles(points),
            textures,
            SIZE,
            near=_NEAR_PLANE,
            far=_FAR_PLANE,
            background_color=(1.0, 1.0, 1.0),
        )
        return image.clamp(-1, 1)

    def on_screen(self, points: Tensor) -> Tensor:
        """Points [B, 64, 64, 3] as the rasterizer takes vertices, [B, 4096, 3].

        x and y run from -1 to 1 across the image, from left to right and upward; z is the depth.
        """
        x, y, z = points.unbind(-1)
        u, v = self.project(torch.stack([x, y, z + _PUBLISHED_EPS], dim=-1)).unbind(-1)
        return torch.stack([2 * u / SIZE - 1, 1 - 2 * v / SIZE, z], dim=-1).flatten(1, 2)

    def _triangles(self, points: Tensor) -> Tensor:
        """On the screen, each from both sides: the rasterizer draws front sides alone."""
        faces = grid_faces(points.device)
        faces = torch.cat([faces, faces.flip(-1)]).expand(len(points), -1, -1)
        return vertices_to_faces(self.on_screen(points), faces)

    def _center(self, points: Tensor) -> Tensor:
        return constant([0.0, 0.0, self.center], points)


def frustum_of(config: Config) -> Frustum:
    """The inverse renderer's camera and depths for a run.

    Raises UserError where depths of a preset leave no room for it.
    """
    fov = PUBLISHED_FOV
    if config.geod.camera_fov:
        fov = math.degrees(2 * math.atan(1 / (2 * config.camera.focal)))
    return Frustum(config.rendering.near, config.rendering.far, fov)


def surface_normals(points: Tensor) -> Tensor:
    """Unit normals [..., H, W, 3] of surfaces through points [..., H, W, 3].

    From central differences; (0, 0, 1) on the outermost ring. They point away from the camera.
    """
    right = points[..., 1:-1, 2:, :] - points[..., 1:-1, :-2, :]
    down = points[..., 2:, 1:-1, :] - points[..., :-2, 1:-1, :]
    inner = torch.linalg.cross(right, down)
    normals = torch.zeros_like(points)
    normals[..., 2] = 1
    normals[..., 1:-1, 1:-1, :] = inner
    return normals / (normals.norm(dim=-1, keepdim=True) + _NORMAL_EPS)


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rz Ry Rx [B, 3, 3] of angles [B, 3] about x, y, z in radians."""
    x, y, z = (_axis_rotation(angles[:, axis], axis) for axis in range(3))
    return z @ y @ x


def corner_colors(image: Tensor) -> Tensor:
    """Colors [B, F, 3, 3] at the corners of `grid_faces` of images [B, 3, 64, 64]."""
    return image.flatten(2).mT[:, grid_faces(image.device)]


def grid_faces(device: torch.device) -> Tensor:
    """Triangles [2 * 63 * 63, 3] between neighboring pixels, as indices row * 64 + column."""
    index = torch.arange(SIZE * SIZE, device=device).reshape(SIZE, SIZE)
    here, right = index[:-1, :-1], index[:-1, 1:]
    below, across = index[1:, :-1], index[1:, 1:]
    upper, lower = (here, below, right), (right, below, across)
    return torch.cat([torch.stack(corners, dim=-1).flatten(0, 1) for corners in (upper, lower)])


def _axis_rotation(angle: Tensor, axis: int) -> Tensor:
    """Rotations [B, 3, 3] about one of the axes."""
    following, last = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.zeros(len(angle), 3, 3, dtype=angle.dtype, device=angle.device)
    matrix[:, axis, axis] = 1
    matrix[:, following, following] = matrix[:, last, last] = angle.cos()
    matrix[:, last, following] = angle.sin()
    matrix[:, following, last] = -angle.sin()
    return matrix


def _linear_textures(colors: Tensor) -> Tensor:
    """Texture cubes [B, F, 2, 2, 2, 3] that interpolate corners' colors [B, F, 3, 3] linearly."""
    half = colors.sum(dim=2) / 2
    ends = [torch.stack([torch.zeros_like(half), color - half], 2) for color in colors.unbind(2)]
    i, j, k = ends
    cube = i[:, :, :, None, None] + j[:, :, None, :, None] + k[:, :, None, None, :]
    return cube + half[:, :, None, None, None]
