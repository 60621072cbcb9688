"""The kernels in torch: what the native op must compute, written to be read.

The rasterizer follows Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates"
(1997); the derivative with respect to vertices is that of Kato, Ushiku and Harada, "Neural 3D Mesh
Renderer" (CVPR 2018), section 3.2.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .types import Fragments, View

_CHUNK = 1 << 17  # pixels that are looked at together: few enough to stay in the cache
_TIE = 1e-4  # depths that differ by less, relatively, hide nothing from each other
_NOTHING = torch.iinfo(torch.int64).max


def rasterize(faces: Tensor, view: View) -> Fragments:
    """Find the nearest front face at each pixel, its barycentric weights and its depth.

    Args:
        faces: [B, F, 3, 3] vertices as x, y on the screen (in [-1, 1], y up) and depth z.
        view: the image's size, and between which depths faces are drawn.

    Returns:
        Fragments, of which only the depth carries gradients to `faces`.
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
        fragments: what `rasterize` found.
        background: [3], the color where no face is seen.

    Returns:
        [B, 3, S, S].
    """
    cube = textures.shape[2]
    images, rows, columns = (fragments.face_index >= 0).nonzero(as_tuple=True)
    pixels = (images, rows, columns)
    face = fragments.face_index[pixels].long()
    position = fragments.weights[images, :, rows, columns] * (cube - 1)
    low = position.long().clamp(max=max(cube - 2, 0))
    part = position - low
    color = textures.new_zeros(len(face), 3)
    for corner in itertools.product((0, 1), repeat=3):
        step = torch.tensor(corner, device=low.device)
        i, j, k = (low + step).clamp(max=cube - 1).unbind(1)
        share = torch.where(step.bool(), part, 1 - part).prod(1, keepdim=True)
        color = color + share * textures[images, face, i, j, k]
    image = background.expand(*fragments.face_index.shape, 3).clone()
    return image.index_put(pixels, color).permute(0, 3, 1, 2).contiguous()


def sweep(
    faces: Tensor, fragments: Fragments, image: Tensor, grad: Tensor, view: View, eps: float
) -> Tensor:
    """Derivative of a loss of an image of faces by the faces: the paper's approximation.

    A vertex moves an edge, along x or along y. Once the edge has swept to the center of a pixel,
    over a distance d, that pixel changes its color by delta I: a pixel outside the face takes on
    the face's color at the edge, a pixel that shows the face takes on the color beyond the edge.
    The sudden change is replaced by a gradual one, delta I / d (paper, equations 1 to 4), which
    counts only if it lowers the loss, if the edge is not hidden, and if the pixel that is swept
    over does not show something nearer.

    Args:
        faces: [B, F, 3, 3], as drawn.
        fragments: what `rasterize` found of them.
        image: [B, C, S, S], what was drawn.
        grad: [B, C, S, S], d loss / d image.
        view: as they were drawn.
        eps: the shortest distance d, in screen units, which bounds the derivative.

    Returns:
        [B, F, 3, 3], 0 for z.
    """
    half = view.size / 2  # pixels per screen unit
    x, y, z = faces.double().unbind(-1)
    column, row = (x + 1) * half - 0.5, (1 - y) * half - 0.5
    upright = fragments.face_index, fragments.depth, image, grad
    lying = (plane.mT for plane in upright)
    moved = torch.zeros_like(faces)
    moved[..., 0] = half * _sweep_lines(_Lines(column, row, z, 1, *upright), view, eps * half)
    moved[..., 1] = -half * _sweep_lines(_Lines(row, column, z, -1, *lying), view, eps * half)
    return moved


class _Lines(NamedTuple):
    """A batch of images seen as lines of pixels, along which edges are swept."""

    along: Tensor  # [B, F, 3], where vertices lie along the lines, in pixels
    across: Tensor  # [B, F, 3], in which line
    z: Tensor  # [B, F, 3]
    orientation: int  # +1 if a face lies toward larger `along` of its edges of growing `across`
    face_index: Tensor  # [B, L, N]
    depth: Tensor  # [B, L, N]
    image: Tensor  # [B, C, L, N]
    grad: Tensor  # [B, C, L, N]


def _sweep_lines(lines: _Lines, view: View, least: float) -> Tensor:
    """Derivative of the loss by lines.along, [B, F, 3]."""
    moved = torch.zeros_like(lines.along)
    for crossing in _crossings(lines, view):
        slope = _slope(lines, crossing, least)
        for vertex, share in ((crossing.start, 1 - crossing.share), (crossing.end, crossing.share)):
            where = crossing.image, crossing.face, vertex
            moved.index_put_(where, share * slope, accumulate=True)
    return moved


def _slope(lines: _Lines, crossing: "_Crossings", least: float) -> Tensor:
    """Derivative of the loss by crossing.at, [P]."""
    place = crossing.image, slice(None), crossing.line
    grad, image = lines.grad[place], lines.image[place]  # [P, C, N]
    pixel = torch.arange(grad.shape[2], device=grad.device)
    gap = pixel - crossing.at[:, None]
    distance = torch.where(gap < 0, -1, 1) * gap.abs().clamp(min=least)

    def swept(source: Tensor, counts: Tensor) -> Tensor:
        color = image.gather(2, source[:, None, None].expand(-1, image.shape[1], 1))
        change = torch.einsum("pcn,pcn->pn", color - image, grad)
        return (counts * change.clamp(max=0) / distance).sum(1)

    outside = (pixel - crossing.inside[:, None]) * crossing.inward[:, None] < 0
    hidden = lines.depth[place[::2]] < crossing.depth[:, None] * (1 - _TIE)
    shown = lines.face_index[place[::2]] == crossing.face[:, None]
    onto_others = swept(crossing.inside, outside & ~hidden)
    off_the_face = swept(crossing.outside, ~outside & shown)
    return onto_others + off_the_face


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


def _crossings(lines: _Lines, view: View) -> Iterator[_Crossings]:
    visible = torch.zeros(lines.z.shape[:2], dtype=torch.bool, device=lines.z.device)
    images, _, _ = shown = (lines.face_index >= 0).nonzero(as_tuple=True)
    visible[images, lines.face_index[shown].long()] = True
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


def _cross(lines: _Lines, view: View, image, face, start, end, line) -> _Crossings:
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
    drawn = lines.face_index[image, line, inside.clamp(0, view.size - 1)] == face
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

    Spelt out since a fused multiply-add could give neighbors different signs on a common edge.
    """
    point = _homogeneous(faces, view)
    (ax, ay, ah), (bx, by, bh) = (point.roll(-k, -2).unbind(-1) for k in (1, 2))
    return torch.stack((ay * bh - ah * by, ah * bx - ax * bh, ax * by - ay * bx), -1)


def _at_pixels(edges: Tensor, row: Tensor, column: Tensor, view: View) -> Tensor:
    """Edge functions [P, 3, 3] at the centers of pixels [P]: [P, 3]."""
    x = (2 * column[:, None] + 1 - view.size).double() / view.size
    y = (view.size - 1 - 2 * row[:, None]).double() / view.size
    a, b, c = edges.unbind(-1)
    return a * x + (b * y + c)


def _sum3(x: Tensor) -> Tensor:
    """The sum over the last axis of length 3 in the native op's order, kept as an axis."""
    return (x[..., 0] + x[..., 1] + x[..., 2])[..., None]


def _pixel_range(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First and last pixel with its center in [low, high], with some slack for rounding."""
    first = (((low + 1) * size - 1) / 2 - 1e-6).ceil().clamp(0, size)
    last = (((high + 1) * size - 1) / 2 + 1e-6).floor().clamp(-1, size - 1)
    return first.long(), last.long()
