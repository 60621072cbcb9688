"""From triangles on the screen to images, with gradients."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import ops as kernels

IMAGE_SIZE = 256
NEAR = 0.1
FAR = 100.0
EPS = 1e-3
BLACK = (0.0, 0.0, 0.0)


class Images(NamedTuple):
    """What a rasteriser draws; None where it was not asked to."""

    rgb: Tensor | None  # [B, 3, S, S]
    alpha: Tensor | None  # [B, S, S], 1 where a face is seen
    depth: Tensor | None  # [B, S, S], z of the nearest face, `far` where there is none


class Rasterize(torch.nn.Module):
    """Draws faces without anti-aliasing.

    A face is drawn where its vertices run counter-clockwise on the screen and its depth lies
    between `near` and `far`. Degenerate faces, those behind the camera and those that are not
    finite draw nothing.

    Gradients: `rgb` to textures, and `depth` to vertices, are exact; `rgb` and `alpha` to vertices
    follow Kato et al., "Neural 3D Mesh Renderer", section 3.2 (see `ops.reference.sweep`).

    Args:
        eps: the shortest distance over which an edge is taken to sweep, in screen units (the image
            is 2 wide). It bounds the gradients of pixels next to an edge.
        perspective: whether screen positions are x/z, y/z. If not, z is linear over the screen.
        ops: 'auto', 'torch' or 'native' (see `ops.select`).
    """

    def __init__(
        self,
        image_size: int = IMAGE_SIZE,
        near: float = NEAR,
        far: float = FAR,
        eps: float = EPS,
        background_color: Sequence[float] = BLACK,
        return_rgb: bool = False,
        return_alpha: bool = False,
        return_depth: bool = False,
        perspective: bool = True,
        ops: str | None = None,
    ) -> None:
        super().__init__()
        if int(image_size) != image_size or not 1 <= image_size <= 1 << 14:
            raise ValueError(f"image_size must be a whole number from 1 to 8192, not {image_size}")
        if not 0 < near < far:
            raise ValueError(f"need 0 < near < far, not near={near}, far={far}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, not {eps}")
        if len(background_color) != 3:
            raise ValueError(f"background_color must be three numbers, not {background_color}")
        self.view = kernels.View(int(image_size), float(near), float(far), perspective)
        self.eps = eps
        self.background_color = background_color
        self.return_rgb, self.return_alpha, self.return_depth = return_rgb, return_alpha, return_depth
        self.ops = ops

    def forward(self, faces: Tensor, textures: Tensor | None = None) -> Images:
        """Draw faces [B, F, 3, 3] with textures [B, F, T, T, T, 3].

        Raises ValueError if the shapes, types or devices do not fit together.
        """
        _check_faces(faces)
        op = kernels.select(self.ops, faces.device)
        fragments = op.rasterize(faces, self.view)
        planes = []
        if self.return_rgb:
            _check_textures(textures, faces)
            background = torch.as_tensor(self.background_color).to(faces)
            planes.append(op.sample(textures, fragments, background))
        if self.return_alpha:
            planes.append((fragments.index >= 0).to(faces.dtype)[:, None])

        rgb = alpha = None
        if planes:
            image = planes[0] if len(planes) == 1 else torch.cat(planes, 1)
            depth = fragments.depth.detach()
            image = _SweptEdges.apply(faces, image, fragments.index, depth, op, self.view, self.eps)
            rgb = image[:, :3] if self.return_rgb else None
            alpha = image[:, -1] if self.return_alpha else None
        return Images(rgb, alpha, fragments.depth if self.return_depth else None)


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

    With `anti_aliasing` each pixel is the mean of 2 x 2. Returns 'rgb' [B, 3, S, S], 'alpha' and
    'depth' [B, S, S], each None if it was not to be returned.
    """
    draw = Rasterize(
        image_size * 2 if anti_aliasing else image_size,
        near,
        far,
        eps,
        background_color,
        return_rgb,
        return_alpha,
        return_depth,
        perspective,
        ops,
    )
    images = draw(faces, textures)._asdict()
    if anti_aliasing:
        images = {name: image if image is None else _halve(image) for name, image in images.items()}
    return images


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
    return rasterize_rgbad(
        faces, textures, image_size, anti_aliasing, near, far, eps, background_color,
        True, False, False, perspective, ops,
    )["rgb"]  # fmt: skip


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
    return rasterize_rgbad(
        faces, None, image_size, anti_aliasing, near, far, eps, BLACK,
        False, True, False, perspective, ops,
    )["alpha"]  # fmt: skip


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
    return rasterize_rgbad(
        faces, None, image_size, anti_aliasing, near, far, eps, BLACK,
        False, False, True, perspective, ops,
    )["depth"]  # fmt: skip


class _SweptEdges(torch.autograd.Function):
    """Leaves an image as it is, and gives it a derivative with respect to vertices."""

    @staticmethod
    def forward(ctx, faces, image, index, depth, op: ModuleType, view: kernels.View, eps: float):
        ctx.save_for_backward(faces, image, index, depth)
        ctx.op, ctx.view, ctx.eps = op, view, eps
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        moved = None
        if ctx.needs_input_grad[0]:
            faces, image, index, depth = ctx.saved_tensors
            half = ctx.view.size / 2  # pixels per screen unit
            position = faces.double()
            column = (position[..., 0] + 1) * half - 0.5
            row = (1 - position[..., 1]) * half - 0.5
            z = position[..., 2].contiguous()
            grad = grad.contiguous()
            upright = index, depth, image, grad
            lying = (x.transpose(-1, -2).contiguous() for x in upright)
            along_x = kernels.Lines(column, row, z, 1, *upright)
            along_y = kernels.Lines(row, column, z, -1, *lying)
            moved = torch.zeros_like(faces)
            moved[..., 0] = half * ctx.op.sweep(along_x, ctx.view, ctx.eps * half)
            moved[..., 1] = -half * ctx.op.sweep(along_y, ctx.view, ctx.eps * half)
        return moved, grad, None, None, None, None, None


def _halve(image: Tensor) -> Tensor:
    """The mean over 2 x 2 pixels of [..., 2S, 2S]."""
    return F.avg_pool2d(image.flatten(0, -3)[:, None], 2)[:, 0].unflatten(0, image.shape[:-2])


def _check_faces(faces: Tensor) -> None:
    if faces.ndim != 4 or faces.shape[2:] != (3, 3):
        raise ValueError(f"faces must be [batch, faces, 3, 3], not {list(faces.shape)}")
    if faces.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"faces must be float32 or float64, not {faces.dtype}")


def _check_textures(textures: Tensor | None, faces: Tensor) -> None:
    if textures is None:
        raise ValueError("colours need textures, [batch, faces, T, T, T, 3]")
    cube = textures.shape[2] if textures.ndim == 6 else 0
    if cube < 1 or textures.shape != (*faces.shape[:2], cube, cube, cube, 3):
        raise ValueError(
            f"textures must be [batch={faces.shape[0]}, faces={faces.shape[1]}, T, T, T, 3], "
            f"not {list(textures.shape)}"
        )
    if textures.dtype != faces.dtype or textures.device != faces.device:
        raise ValueError(
            f"textures ({textures.dtype}, {textures.device}) must match faces "
            f"({faces.dtype}, {faces.device})"
        )
