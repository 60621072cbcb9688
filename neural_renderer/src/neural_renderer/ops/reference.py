"""The kernels in torch: what the native op must compute, written to be read.

The rasteriser follows Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates"
(1997); the derivative with respect to vertices is that of Kato, Ushiku and Harada, "Neural 3D Mesh
Renderer" (CVPR 2018), section 3.2.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .types import Fragments, Lines, View

_CHUNK = 1 << 21  # pixels that are looked at together
_NOTHING = torch.iinfo(torch.int64).max


def rasterize(faces: Tensor, view: View) -> Fragments:
    """Find the nearest front face at each pixel, its barycentric weights and its depth.

    Args:
        faces: [B, F, 3, 3] vertices as x, y on the screen (in [-1, 1], y up) and depth z.

    Of the result only the depth carries gradients to `faces`.
    """
    index = _nearest_faces(faces.detach().double(), view)
    images, rows, columns = (index >= 0).nonzero(as_tuple=True)
    seen = faces[images, index[images, rows, columns].long()].double()  # [P, 3, 3]
    e = _at_pixels(_edge_functions(seen, view), rows, columns, view)
    w = e / _sum3(e)
    pixels = (images, rows, columns)
    weights = faces.new_zeros(len(faces), view.size, view.size, 3)
    weights[pixels] = w.detach().to(faces.dtype)
    depth = faces.new_full(index.shape, view.far)
    depth = depth.index_put(pixels, _sum3(w * seen[..., 2])[:, 0].to(faces.dtype))
    return Fragments(index, weights.permute(0, 3, 1, 2).contiguous(), depth)


def sample(textures: Tensor, fragments: Fragments, background: Tensor) -> Tensor:
    """Look the texture cubes up at the fragments' weights x (T - 1), trilinearly.

    Args:
        textures: [B, F, T, T, T, 3]; the axes of a cube belong to the three vertices.
        background: [3], the colour where no face is seen.

    Returns [B, 3, S, S].
    """
    cube = textures.shape[2]
    images, rows, columns = (fragments.index >= 0).nonzero(as_tuple=True)
    pixels = (images, rows, columns)
    face = fragments.index[pixels].long()
    position = fragments.weights[images, :, rows, columns] * (cube - 1)
    low = position.long().clamp(max=max(cube - 2, 0))
    part = position - low
    colour = textures.new_zeros(len(face), 3)
    for corner in itertools.product((0, 1), repeat=3):
        step = torch.tensor(corner, device=low.device)
        i, j, k = (low + step).clamp(max=cube - 1).unbind(1)
        share = torch.where(step.bool(), part, 1 - part).prod(1, keepdim=True)
        colour = colour + share * textures[images, face, i, j, k]
    image = background.expand(*fragments.index.shape, 3).clone()
    return image.index_put(pixels, colour).permute(0, 3, 1, 2).contiguous()


def sweep(lines: Lines, view: View, least: float) -> Tensor:
    """d loss / d `lines.along`, by the paper's approximation. [B, F, 3], double.

    A vertex moves an edge along a line of pixels. Once the edge has swept to the centre of a
    pixel, at a distance d, that pixel changes its colour by delta I: a pixel outside the face takes
    on the face's colour at the edge, a pixel that shows the face takes on the colour beyond the
    edge. The sudden change is replaced by a gradual one, delta I / d (paper, equations 1 to 4),
    which counts only where it lowers the loss, where the edge is not hidden, and where the pixel
    that is swept over is not hidden by something nearer.

    Args:
        least: the shortest distance d, in pixels, which bounds the derivative.
    """
    grad = torch.zeros_like(lines.along)
    pixel = torch.arange(view.size, device=grad.device)
    for crossing in _crossings(lines, view):
        image, face, line, inward = crossing.image, crossing.face, crossing.line, crossing.inward
        pixel_grad = lines.grad[image, :, line]  # [P, C, N]
        gap = pixel - crossing.at[:, None]
        distance = torch.where(gap < 0, -1.0, 1.0) * gap.abs().clamp(min=least)
        beyond = (pixel - crossing.inside[:, None]) * inward[:, None] < 0

        def swept(source: Tensor, counts: Tensor) -> Tensor:
            colour = lines.image[image, :, line, source]
            change = torch.einsum("pc,pcn->pn", colour, pixel_grad) - lines.loss[image, line]
            counts = counts & (change < 0)
            return (counts * change / distance).sum(1)

        hidden = lines.depth[image, line] < crossing.depth[:, None] * (1 - 1e-4)
        shown = lines.index[image, line] == face[:, None]
        slope = swept(crossing.inside, beyond & ~hidden)
        slope = slope + swept(crossing.outside, ~beyond & shown)
        for vertex, share in ((crossing.start, 1 - crossing.share), (crossing.end, crossing.share)):
            grad.index_put_((image, face, vertex), share * slope, accumulate=True)
    return grad


class _Crossings(NamedTuple):
    """Places where visible edges cross lines of pixels, all [P]."""

    image: Tensor
    face: Tensor
    start: Tensor  # the edge's vertices, 0 to 2
    end: Tensor
    line: Tensor
    at: Tensor  # position along the line
    share: Tensor  # how much `at` moves with the end; it moves by 1 - share with the start
    inward: Tensor  # +1 where the face lies toward larger positions, else -1
    inside: Tensor  # the pixels on either side of the edge
    outside: Tensor
    depth: Tensor


def _crossings(lines: Lines, view: View) -> Iterator[_Crossings]:
    visible = torch.zeros(lines.z.shape[:2], dtype=torch.bool, device=lines.z.device)
    images, _, _ = shown = (lines.index >= 0).nonzero(as_tuple=True)
    visible[images, lines.index[shown].long()] = True
    image, face = visible.nonzero(as_tuple=True)
    start = torch.arange(3, device=face.device).repeat(len(face))
    image, face = image.repeat_interleave(3), face.repeat_interleave(3)
    if view.perspective:  # an edge that passes behind the camera has no end to pull on
        ahead = lines.z[image, face].gather(1, torch.stack((start, (start + 1) % 3), 1)) > 0
        image, face, start = (x[ahead.all(1)] for x in (image, face, start))
    end = (start + 1) % 3
    a, b = lines.across[image, face, start], lines.across[image, face, end]
    first = torch.minimum(a, b).ceil().clamp(0, view.size).long()
    count = torch.maximum(a, b).ceil().clamp(0, view.size).long() - first
    for edge, step in _expand(count, _CHUNK // view.size):
        yield _cross(
            lines, view, image[edge], face[edge], start[edge], end[edge], first[edge] + step
        )


def _cross(lines: Lines, view: View, image, face, start, end, line) -> _Crossings:
    a, b = lines.across[image, face, start], lines.across[image, face, end]
    share = (line - a) / (b - a)
    at = lines.along[image, face, start]
    at = at + share * (lines.along[image, face, end] - at)
    inward = torch.where(b > a, lines.orientation, -lines.orientation)
    inside = torch.where(inward > 0, at.ceil(), at.floor()).clamp(-2, 2 * view.size).long()
    outside = inside - inward
    z = lines.z[image, face]
    z0, z1 = z.gather(1, start[:, None])[:, 0], z.gather(1, end[:, None])[:, 0]
    u0, u1 = ((1 - share) / z0, share / z1) if view.perspective else (1 - share, share)
    depth = (u0 * z0 + u1 * z1) / (u0 + u1)

    on_screen = (torch.minimum(inside, outside) >= 0) & (torch.maximum(inside, outside) < view.size)
    drawn = lines.index[image, line, inside.clamp(0, view.size - 1)] == face
    everything = _Crossings(
        image, face, start, end, line, at, share, inward, inside, outside, depth
    )
    return _Crossings(*(x[on_screen & drawn] for x in everything))


def _nearest_faces(faces: Tensor, view: View) -> Tensor:
    """The index of the nearest front face at each pixel, [B, S, S] int32, -1 for none.

    Depths are compared in single precision; the first of equally near faces wins.
    """
    batch, count = faces.shape[:2]
    size = view.size
    faces = faces.reshape(-1, 3, 3)
    edges = _edge_functions(faces, view)
    point = _homogeneous(faces, view)
    area = _sum3(point[:, 0] * edges[:, 0])[:, 0]
    ahead = point[..., 2] > 0
    drawable = ((area > 0) & area.isfinite() & ahead.any(1)).nonzero()[:, 0]

    # The box of a face that passes behind the camera is unbounded.
    some_behind = ~ahead.all(1)[:, None]
    low = faces[..., :2].amin(1).masked_fill(some_behind, -1)[drawable]
    high = faces[..., :2].amax(1).masked_fill(some_behind, 1)[drawable]
    left, right = _pixel_range(low[:, 0], high[:, 0], size)
    top, bottom = _pixel_range(-high[:, 1], -low[:, 1], size)
    width, height = (right - left + 1).clamp(min=0), (bottom - top + 1).clamp(min=0)

    nearest = torch.full((batch * size * size,), _NOTHING, device=faces.device)
    for box, step in _expand(width * height, _CHUNK):
        face = drawable[box]
        row = top[box] + step // width[box]
        column = left[box] + step % width[box]
        e = _at_pixels(edges[face], row, column, view)
        total = _sum3(e)
        depth = _sum3(e / total * faces[face, :, 2])[:, 0]
        covered = (e >= 0).all(1) & (total[:, 0] > 0) & (depth > view.near) & (depth < view.far)
        key = depth.float().view(torch.int32).long() << 32 | face % max(count, 1)
        pixel = (face // max(count, 1) * size + row) * size + column
        nearest.scatter_reduce_(0, pixel[covered], key[covered], "amin")
    index = torch.where(nearest == _NOTHING, -1, nearest & 0xFFFFFFFF)
    return index.int().view(batch, size, size)


def _expand(counts: Tensor, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(i, j) for each i and each j < counts[i], in blocks of about `limit`."""
    ends = counts.cumsum(0)
    begin = 0
    while begin < len(counts):
        done = ends[begin - 1] if begin else 0
        stop = max(int(torch.searchsorted(ends, done + limit, right=True)), begin + 1)
        part = counts[begin:stop]
        i = torch.arange(begin, stop, device=counts.device).repeat_interleave(part)
        offset = (part.cumsum(0) - part).repeat_interleave(part)
        yield i, torch.arange(len(i), device=counts.device) - offset
        begin = stop


def _homogeneous(faces: Tensor, view: View) -> Tensor:
    """(x h, y h, h) of each vertex [..., 3, 3]; h is z in a perspective view, else 1."""
    h = faces[..., 2] if view.perspective else torch.ones_like(faces[..., 2])
    return torch.stack((faces[..., 0] * h, faces[..., 1] * h, h), -1)


def _edge_functions(faces: Tensor, view: View) -> Tensor:
    """E_k = P_(k+1) x P_(k+2), [..., 3 edges, 3]: at (x, y, 1) it is 0 on the edge facing vertex k.

    Spelt out since a fused multiply-add could give neighbours different signs on a common edge.
    """
    point = _homogeneous(faces, view)
    (ax, ay, ah), (bx, by, bh) = (point.roll(-k, -2).unbind(-1) for k in (1, 2))
    return torch.stack((ay * bh - ah * by, ah * bx - ax * bh, ax * by - ay * bx), -1)


def _at_pixels(edges: Tensor, row: Tensor, column: Tensor, view: View) -> Tensor:
    """Edge functions [P, 3, 3] at the centres of pixels [P]: [P, 3]."""
    x = (2 * column[:, None] + 1 - view.size).double() / view.size
    y = (view.size - 1 - 2 * row[:, None]).double() / view.size
    a, b, c = edges.unbind(-1)
    return a * x + (b * y + c)


def _sum3(x: Tensor) -> Tensor:
    """The sum over the last axis of length 3 in the native op's order, kept as an axis."""
    return (x[..., 0] + x[..., 1] + x[..., 2])[..., None]


def _pixel_range(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First and last pixel with its centre in [low, high], with some slack for rounding."""
    first = (((low + 1) * size - 1) / 2 - 1e-6).ceil().clamp(0, size)
    last = (((high + 1) * size - 1) / 2 + 1e-6).floor().clamp(-1, size - 1)
    return first.long(), last.long()
