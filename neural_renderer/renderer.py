"""The renderer: camera, light and rasterizer in one object."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .camera import Array, Vector, look, look_at, perspective, projection
from .checks import whole_numbers
from .lights import lighting
from .mesh import vertices_to_faces
from .rasterizer import rasterize, rasterize_depth, rasterize_rgbad, rasterize_silhouettes


class Rendering(NamedTuple):
    """What `Renderer.render` returns. S is image_size."""

    rgb: Tensor  # [B, 3, S, S]
    depth: Tensor  # [B, S, S]
    alpha: Tensor  # [B, S, S]


class Renderer(torch.nn.Module):
    """Renders batches of textured meshes.

    Every argument is an attribute of the same name, which may be changed at any time; so are `eye`
    (at first (0, 0, -(1/tan(viewing_angle) + 1)), toward the origin) and `up` (at first y).

    Args:
        image_size: width and height in pixels.
        anti_aliasing: draw at twice the size, and average.
        background_color: three numbers.
        fill_back: draw faces from both sides; else only where they run counter-clockwise.
        camera_mode: 'projection' (K, R, t, dist_coeffs and orig_size, see `projection`), 'look'
            (from `eye` in `camera_direction`) or 'look_at' (from `eye` to the origin). With any
            other name, such as 'none', vertices are taken to be on the screen already.
        perspective: for the look modes; if off, x and y are taken as they are.
        viewing_angle: for the look modes; half the field of view, in degrees.
        near, far: faces are drawn between these depths; `far` is the depth of the background.
        light_intensity_ambient, light_intensity_directional, light_color_ambient,
            light_color_directional, light_direction: see `lighting`.
        ops: 'auto', 'torch' or 'native' (see `ops.select`).
    """

    def __init__(
        self,
        image_size: int = 256,
        anti_aliasing: bool = True,
        background_color: Sequence[float] = (0, 0, 0),
        fill_back: bool = True,
        camera_mode: str | None = "projection",
        K: Array | None = None,
        R: Array | None = None,
        t: Array | None = None,
        dist_coeffs: Array | None = None,
        orig_size: float = 1024,
        perspective: bool = True,
        viewing_angle: float = 30,
        camera_direction: Vector = (0, 0, 1),
        near: float = 0.1,
        far: float = 100,
        light_intensity_ambient: float = 0.5,
        light_intensity_directional: float = 0.5,
        light_color_ambient: Vector = (1, 1, 1),
        light_color_directional: Vector = (1, 1, 1),
        light_direction: Vector = (0, 1, 0),
        ops: str | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.anti_aliasing = anti_aliasing
        self.background_color = background_color
        self.fill_back = fill_back
        self.camera_mode = camera_mode
        self.K, self.R, self.t = K, R, t
        self.dist_coeffs = dist_coeffs
        self.orig_size = orig_size
        self.perspective = perspective
        self.viewing_angle = viewing_angle
        self.camera_direction = camera_direction
        self.eye: Vector = (0, 0, -(1 / math.tan(math.radians(viewing_angle)) + 1))
        self.up: Vector = (0, 1, 0)
        self.near, self.far = near, far
        self.light_intensity_ambient = light_intensity_ambient
        self.light_intensity_directional = light_intensity_directional
        self.light_color_ambient = light_color_ambient
        self.light_color_directional = light_color_directional
        self.light_direction = light_direction
        self.ops = ops

    def forward(
        self,
        vertices: Array,
        faces: Array,
        textures: Array | None = None,
        mode: str | None = None,
        *camera: Any,
        **named: Any,
    ) -> Rendering | Tensor:
        """`render`, or one of its images if `mode` is 'rgb', 'depth' or 'silhouettes'."""
        if mode is None:
            return self.render(vertices, faces, textures, *camera, **named)
        if mode == "rgb":
            return self.render_rgb(vertices, faces, textures, *camera, **named)
        if mode == "depth":
            return self.render_depth(vertices, faces, *camera, **named)
        if mode == "silhouettes":
            return self.render_silhouettes(vertices, faces, *camera, **named)
        raise ValueError(f"mode must be None, 'rgb', 'depth' or 'silhouettes', not {mode!r}")

    def render(
        self,
        vertices: Array,
        faces: Array,
        textures: Array | None = None,
        *camera: Any,
        **named: Any,
    ) -> Rendering:
        """Colors, depth and alpha of a batch of meshes.

        Args:
            vertices: [B, V, 3].
            faces: [B, F, 3] whole numbers.
            textures: [B, F, T, T, T, 3], None for white.
            *camera: K, R, t, dist_coeffs, orig_size, in place of the attributes.
            **named: the same by name.

        Raises:
            ValueError: if the shapes do not fit together or the camera is not given.
        """
        vertices, faces = self._mesh(vertices, faces)
        images = rasterize_rgbad(
            self._on_screen(vertices, faces, *camera, **named),
            self._lit(vertices, faces, textures),
            background_color=self.background_color,
            **self._drawing(),
        )
        rgb, depth, alpha = images["rgb"], images["depth"], images["alpha"]
        assert rgb is not None and depth is not None and alpha is not None  # all by default
        return Rendering(rgb, depth, alpha)

    def render_rgb(
        self,
        vertices: Array,
        faces: Array,
        textures: Array | None = None,
        *camera: Any,
        **named: Any,
    ) -> Tensor:
        """The colors of `render`, [B, 3, S, S]."""
        vertices, faces = self._mesh(vertices, faces)
        return rasterize(
            self._on_screen(vertices, faces, *camera, **named),
            self._lit(vertices, faces, textures),
            background_color=self.background_color,
            **self._drawing(),
        )

    def render_depth(self, vertices: Array, faces: Array, *camera: Any, **named: Any) -> Tensor:
        """The depth of `render`, [B, S, S]."""
        vertices, faces = self._mesh(vertices, faces)
        return rasterize_depth(
            self._on_screen(vertices, faces, *camera, **named), **self._drawing()
        )

    def render_silhouettes(
        self, vertices: Array, faces: Array, *camera: Any, **named: Any
    ) -> Tensor:
        """The alpha of `render`, [B, S, S]."""
        vertices, faces = self._mesh(vertices, faces)
        return rasterize_silhouettes(
            self._on_screen(vertices, faces, *camera, **named), **self._drawing()
        )

    def _mesh(self, vertices: Array, faces: Array) -> tuple[Tensor, Tensor]:
        """As tensors, with the back of each face behind its front if `fill_back`."""
        vertices = _floating(vertices)
        faces = whole_numbers(torch.as_tensor(faces, device=vertices.device))
        if self.fill_back:
            faces = torch.cat((faces, faces.flip(-1)), 1)
        return vertices, faces

    def _lit(self, vertices: Tensor, faces: Tensor, textures: Array | None) -> Tensor:
        if textures is None:
            textures = vertices.new_ones(*faces.shape[:2], 1, 1, 1, 3)
        else:
            textures = _floating(textures)
            if self.fill_back:
                textures = torch.cat((textures, textures.transpose(2, 4)), 1)
        return lighting(
            vertices_to_faces(vertices, faces),
            textures,
            self.light_intensity_ambient,
            self.light_intensity_directional,
            self.light_color_ambient,
            self.light_color_directional,
            self.light_direction,
        )

    def _on_screen(self, vertices: Tensor, faces: Tensor, *camera: Any, **named: Any) -> Tensor:
        return vertices_to_faces(self._project(vertices, *camera, **named), faces)

    def _project(
        self,
        vertices: Tensor,
        K: Array | None = None,
        R: Array | None = None,
        t: Array | None = None,
        dist_coeffs: Array | None = None,
        orig_size: float | None = None,
    ) -> Tensor:
        if self.camera_mode == "projection":
            K, R, t = (_first(K, self.K), _first(R, self.R), _first(t, self.t))
            if K is None or R is None or t is None:
                raise ValueError("camera_mode 'projection' needs K, R and t")
            dist_coeffs = _first(dist_coeffs, self.dist_coeffs)
            orig_size = self.orig_size if orig_size is None else orig_size
            return projection(vertices, K, R, t, dist_coeffs, orig_size)
        if self.camera_mode == "look_at":
            vertices = look_at(vertices, self.eye, up=self.up)
        elif self.camera_mode == "look":
            vertices = look(vertices, self.eye, self.camera_direction, self.up)
        else:
            return vertices
        return perspective(vertices, self.viewing_angle) if self.perspective else vertices

    def _drawing(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "anti_aliasing": self.anti_aliasing,
            "near": self.near,
            "far": self.far,
            "perspective": self.perspective or self.camera_mode == "projection",
            "ops": self.ops,
        }


def _first(given: Array | None, own: Array | None) -> Array | None:
    return own if given is None else given


def _floating(array: Array) -> Tensor:
    """As a tensor; numpy's default of double precision becomes torch's."""
    if isinstance(array, np.ndarray):
        return torch.as_tensor(array, dtype=torch.get_default_dtype())
    return array
