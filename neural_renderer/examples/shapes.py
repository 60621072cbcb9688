"""Closed surfaces and pictures for the examples."""

import math
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor


def sphere(rings: int, segments: int) -> tuple[Tensor, Tensor]:
    """Vertices [1, V, 3] and faces [1, F, 3] of the unit sphere."""
    polar = torch.linspace(0, math.pi, rings + 1)[1:-1, None]
    around = torch.arange(segments) * (2 * math.pi / segments)
    y = polar.cos().expand(-1, segments)
    rims = torch.stack((polar.sin() * around.cos(), y, polar.sin() * around.sin()), -1)
    poles = torch.tensor([[0.0, 1, 0], [0, -1, 0]])
    vertices = torch.cat((rims.reshape(-1, 3), poles))

    index = torch.arange(len(vertices) - 2).view(-1, segments)
    top, bottom = (torch.full((segments,), len(vertices) - back) for back in (2, 1))
    faces = torch.cat(
        (
            _strips(index, index.roll(-1, 1)),
            torch.stack((top, index[0].roll(-1), index[0]), -1),
            torch.stack((bottom, index[-1], index[-1].roll(-1)), -1),
        )
    )
    return vertices[None], faces[None]


def closed_surface(
    points: Callable[[Tensor, Tensor], Tensor], rows: int, columns: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A surface points(u, v) -> [..., 3] that is periodic in both angles u and v.

    Returns vertices [1, V, 3], faces [1, F, 3] and the angle u of each face [F].
    """
    u = torch.arange(rows)[:, None] * (2 * math.pi / rows)
    v = torch.arange(columns)[None] * (2 * math.pi / columns)
    u, v = torch.broadcast_tensors(u, v)
    index = torch.arange(rows * columns).view(rows, columns)
    closed = torch.cat((index, index[:1]))
    faces = _strips(closed, closed.roll(-1, 1))
    return points(u, v).reshape(1, -1, 3), faces[None], u.reshape(-1).repeat_interleave(2)


def save_grid(path: str, rows: list[list[Tensor]]) -> None:
    """Write pictures, [3, S, S] or [S, S] in [0, 1], as the cells of one image."""
    cells = [
        torch.cat([picture.expand(3, *picture.shape[-2:]) for picture in row], 2) for row in rows
    ]
    to_image(torch.cat(cells, 1)).save(path, optimize=True)


def to_image(picture: Tensor) -> Image.Image:
    """[3, H, W] in [0, 1] as an image."""
    pixels = (picture.detach().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _strips(index: Tensor, beside: Tensor) -> Tensor:
    """Two triangles for each cell of a grid of vertices; `beside` holds the next column's."""
    a, b, c, d = index[:-1], beside[:-1], index[1:], beside[1:]
    return torch.stack((a, b, c, b, d, c), -1).reshape(-1, 3)
