"""From triangles on the screen to images, with gradients."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import ops as kernels
from .checks import check_faces, check_textures

IMAGE_SIZE = 256
NEAR = 0.1
FAR = 100.0
EPS = 1e-3
BLACK = (0.0, 0.0, 0.0)


class Images(NamedTuple):
    """What a rasterizer draws; None where it was not asked to."""

    rgb: Tensor | None  # [B, 3, S, S]
    alpha: Tensor | None  # [B, S, S], 1 where a face is seen
    depth: Tensor | None  # [B, S, S], z of the nearest face, `far` where there is none


class Rasterize(torch.nn.Module):
    """Draws faces.

    A face is drawn where its vertices run counter-clockwise on the screen and its depth lies
    between `near` and `far`. Degenerate faces, those behind the camera and those that are not
    finite draw nothing.

    Gradients: `rgb` to textures, and `depth` to vertices, are exact; `rgb` and `alpha` to vertices
    follow Kato et al., "Neural 3D Mesh Renderer", section 3.2 (see `ops.reference.sweep`).

    Args:
        image_size: S, width and height in pixels.
        anti_aliasing: draw at twice the size, and average over 2 x 2 pixels.
        near, far: what lies outside these depths is not drawn.
        eps: the shortest distance over which an edge is taken to sweep, in screen units (the image
            is 2 wide). It bounds the gradients of pixels next to an edge.
        perspective: whether screen positions are x/z, y/z. If not, z is linear over the screen.
        ops: 'auto', 'torch' or 'native' (see `ops.select`).
    """

    def __init__(
        self,
        image_size: int = IMAGE_SIZE,
        anti_aliasing: bool = True,
        near: float = NEAR,
        far: float = FAR,
        eps: float = EPS,
        background_color: Sequence[float] = BLACK,
        return_rgb: bool = True,
        return_alpha: bool = True,
        return_depth: bool = True,
        perspective: bool = True,
        ops: str | None = None,
    ) -> None:
        super().__init__()
        if int(image_size) != image_size or not 1 <= image_size <= 8192:
            raise ValueError(f"image_size must be a whole number from 1 to 8192, not {image_size}")
        if not 0 < near < far:
            raise ValueError(f"need 0 < near < far, not near={near}, far={far}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, not {eps}")
        if len(background_color) != 3:
            raise ValueError(f"background_color must be three numbers, not {background_color}")
        self.anti_aliasing = anti_aliasing
        size = int(image_size) * (2 if anti_aliasing else 1)
        self.view = kernels.View(size, float(near), float(far), perspective)
        self.eps = float(eps)
        self.background_color = background_color
        self.return_rgb = return_rgb
        self.return_alpha = return_alpha
        self.return_depth = return_depth
        self.ops = ops

    def forward(self, faces: Tensor, textures: Tensor | None = None) -> Images:
        """Draw faces.

        Args:
            faces: [B, F, 3, 3], x and y on the screen, and depth.
            textures: [B, F, T, T, T, 3]; not needed without colors.

        Raises:
            ValueError: if the shapes, types or devices do not fit together.
        """
        check_faces(faces)
        op = kernels.select(self.ops, faces.device)
        fragments = op.rasterize(faces, self.view)
        planes = []
        if self.return_rgb:
            if textures is None:
                raise ValueError("colors need textures, [batch, faces, T, T, T, 3]")
            check_textures(textures, faces)
            background = torch.as_tensor(self.background_color).to(faces)
            planes.append(op.sample(textures, fragments, background))
        if self.return_alpha:
            planes.append((fragments.face_index >= 0).to(faces.dtype)[:, None])

        rgb = alpha = depth = None
        if planes:
            image = planes[0] if len(planes) == 1 else torch.cat(planes, 1)
            seen = (plane.detach() for plane in fragments)
            image = self._smooth(_SweptEdges.apply(faces, image, *seen, op, self.view, self.eps))
            rgb = image[:, :3] if self.return_rgb else None
            alpha = image[:, -1] if self.return_alpha else None
        if self.return_depth:
            depth = self._smooth(fragments.depth[:, None])[:, 0]
        return Images(rgb, alpha, depth)

    def _smooth(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 2) if self.anti_aliasing else image


def rasterize_rgbad(
    faces: Tensor,
    textures: Tensor | None = None,
    image_size: int = IMAGE_SIZE,
    anti_aliasing: bool = True,
    near: float = NEAR,
    far: float = FAR,
    eps: float = EPS,
    background_color: Sequence[float] = BLACK,
    return_rgb: bool = True,
    return_alpha: bool = True,
    return_depth: bool = True,
    perspective: bool = True,
    ops: str | None = None,
) -> dict[str, Tensor | None]:
    """Draw faces [B, F, 3, 3] with textures [B, F, T, T, T, 3]; see `Rasterize` for the rest.

    Returns:
        'rgb' [B, 3, S, S], 'alpha' and 'depth' [B, S, S], each None if it was not asked for.
    """
    draw = Rasterize(
        image_size, anti_aliasing, near, far, eps, background_color,
        return_rgb, return_alpha, return_depth, perspective, ops,
    )  # fmt: skip
    return draw(faces, textures)._asdict()


def rasterize(
    faces: Tensor,
    textures: Tensor,
    image_size: int = IMAGE_SIZE,
    anti_aliasing: bool = True,
    near: float = NEAR,
    far: float = FAR,
    eps: float = EPS,
    background_color: Sequence[float] = BLACK,
    perspective: bool = True,
    ops: str | None = None,
) -> Tensor:
    """The 'rgb' of `rasterize_rgbad`, [B, 3, S, S]."""
    images = rasterize_rgbad(
        faces, textures, image_size, anti_aliasing, near, far, eps, background_color,
        True, False, False, perspective, ops,
    )  # fmt: skip
    return _asked_for(images["rgb"])


def rasterize_silhouettes(
    faces: Tensor,
    image_size: int = IMAGE_SIZE,
    anti_aliasing: bool = True,
    near: float = NEAR,
    far: float = FAR,
    eps: float = EPS,
    perspective: bool = True,
    ops: str | None = None,
) -> Tensor:
    """The 'alpha' of `rasterize_rgbad`, [B, S, S]."""
    images = rasterize_rgbad(
        faces, None, image_size, anti_aliasing, near, far, eps, BLACK,
        False, True, False, perspective, ops,
    )  # fmt: skip
    return _asked_for(images["alpha"])


def rasterize_depth(
    faces: Tensor,
    image_size: int = IMAGE_SIZE,
    anti_aliasing: bool = True,
    near: float = NEAR,
    far: float = FAR,
    eps: float = EPS,
    perspective: bool = True,
    ops: str | None = None,
) -> Tensor:
    """The 'depth' of `rasterize_rgbad`, [B, S, S]."""
    images = rasterize_rgbad(
        faces, None, image_size, anti_aliasing, near, far, eps, BLACK,
        False, False, True, perspective, ops,
    )  # fmt: skip
    return _asked_for(images["depth"])


def _asked_for(image: Tensor | None) -> Tensor:
    assert image is not None
    return image


class _SweptEdges(torch.autograd.Function):
    """Leaves an image as it is, and gives it a derivative with respect to vertices."""

    @staticmethod
    def forward(ctx, faces, image, index, weights, depth, op: ModuleType, view, eps):
        ctx.save_for_backward(faces, image, index, weights, depth)
        ctx.op, ctx.view, ctx.eps = op, view, eps
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        moved = None
        if ctx.needs_input_grad[0]:
            faces, image, *fragments = ctx.saved_tensors
            fragments = kernels.Fragments(*fragments)
            moved = ctx.op.sweep(faces, fragments, image, grad.contiguous(), ctx.view, ctx.eps)
        return moved, grad, None, None, None, None, None, None
