"""The surface of a field without a dense grid: evaluate coarsely, then finely where it may lie.

The grid is that of `meshes`; its cells are grouped into blocks of BLOCK^3. The field is evaluated

1. at the corners of all blocks;
2. at all grid points of the blocks that may hold surface: those whose corners lie on both sides of
   the level, or could with the overshoot that second differences of the corners make plausible;
3. of each further block into which surface found so far continues, until it closes;
4. for an audit, at random points of every block that was skipped. One on the wrong side of the
   level shows surface that was overlooked, and the dense grid is taken instead.

What the audit promises: a block has 63 grid points that are no corner (each counts in one block).
If overlooked surface puts n of them on the wrong side, the audit finds it in this block with the
probability 1 - (1 - n / 63)^AUDITS, independently of other blocks. All surface that is found is
complete, and the same as the dense grid's.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 4  # cells along the side of a block
SAFETY = 2.0  # times the overshoot that second differences suggest
AUDITS = 1  # random points in each skipped block
BLOCKS_AT_ONCE = 2**12  # bounds the memory of evaluating and searching

Field = Callable[[Tensor], Tensor]  # indices of grid points [N, 3] -> densities [N]


class SparseGrid(NamedTuple):
    """Densities near a surface.

    padded: float32 [R + 2, R + 2, R + 2], the grid within a layer to spare; right in and on the
    blocks marked in `active`, bool [n, n, n], and wherever else it was evaluated; 0 elsewhere.
    lowest, highest: of all densities evaluated. evaluations: their number. overlooked: whether
    the audit found surface outside these blocks.
    """

    padded: np.ndarray
    active: Tensor
    lowest: float
    highest: float
    evaluations: int
    overlooked: bool


class _Search:
    """The volume as far as it is known, and the field that fills it."""

    def __init__(self, field: Field, resolution: int, level: float):
        self.field, self.level = field, level
        self.last = resolution - 1  # index of the last grid point along each axis
        self.padded = np.zeros((resolution + 2,) * 3, np.float32)
        self.known = torch.from_numpy(self.padded.reshape(-1))
        self.lowest, self.highest, self.evaluations = math.inf, -math.inf, 0

    def place(self, index: Tensor) -> Tensor:
        """Where grid points [..., 3] are in `known`."""
        x, y, z = index.unbind(-1)
        side = len(self.padded)
        return (x * side + y).mul_(side).add_(z).add_(side**2 + side + 1)

    def evaluate(self, index: Tensor) -> Tensor:
        """Densities [N] at grid points [N, 3], entered into the volume as well."""
        density = self.field(index)
        self.lowest = min(self.lowest, density.min().item())
        self.highest = max(self.highest, density.max().item())
        self.evaluations += len(index)
        self.known[self.place(index)] = density
        return density

    def corners(self) -> Tensor:
        """Densities [n + 1, n + 1, n + 1] at the blocks' corners."""
        blocks = -(-self.last // BLOCK)
        corner = (torch.arange(blocks + 1) * BLOCK).clamp(max=self.last)
        layers = []
        for x in corner:
            index = torch.cartesian_prod(x[None], corner, corner)
            layers.append(self.evaluate(index).reshape(blocks + 1, blocks + 1))
        return torch.stack(layers)

    def fill(self, blocks: Tensor) -> None:
        """Evaluate every point in and on the blocks marked [n, n, n] that is no corner, once."""
        marked = F.pad(blocks, (0, 1) * 3)
        for on_face in itertools.product((False, True), repeat=3):
            if all(on_face):
                continue
            needed = marked
            for axis in itertools.compress(range(3), on_face):
                # A point on a block's lower face belongs to the block below, too.
                needed = needed | needed.roll(1, axis)
            steps = [torch.arange(1) if face else torch.arange(1, BLOCK) for face in on_face]
            offsets = torch.cartesian_prod(*steps)
            for some in needed.nonzero().split(BLOCKS_AT_ONCE):
                index = some[:, None] * BLOCK + offsets
                self.evaluate(index.flatten(0, 1).clamp_(max=self.last))

    def blocks_beyond(self, blocks: Tensor) -> Tensor:
        """The neighbors [n, n, n] into which the surface leaves the blocks, marked and filled."""
        found = F.pad(torch.zeros_like(blocks), (1,) * 6)
        offsets = torch.cartesian_prod(*[torch.arange(BLOCK + 1)] * 3)
        for some in blocks.nonzero().split(BLOCKS_AT_ONCE):
            index = (some[:, None] * BLOCK + offsets).clamp_(max=self.last)
            inside = (self.known[self.place(index)] > self.level).unflatten(1, (BLOCK + 1,) * 3)
            for axis, side in itertools.product(range(3), (0, -1)):
                face = inside.select(axis + 1, side).flatten(1)
                leaving = some[face.any(dim=1) & ~face.all(dim=1)] + 1
                leaving[:, axis] += 1 if side else -1
                found[leaving.unbind(1)] = True
        return found[1:-1, 1:-1, 1:-1]

    def is_overlooked(self, skipped: Tensor, inside: Tensor, random: torch.Generator) -> bool:
        """Whether a random point of a skipped block lies on another side than its corners.

        inside: bool [n, n, n], the side of the blocks' corners.
        """
        if not skipped.any():
            return False
        for some in skipped.nonzero().split(BLOCKS_AT_ONCE * BLOCK**3):
            for _ in range(AUDITS):
                place = torch.randint(1, BLOCK**3, (len(some),), generator=random)
                offset = torch.stack(torch.unravel_index(place, (BLOCK,) * 3), dim=-1)
                index = (some * BLOCK + offset).clamp_(max=self.last)
                density = self.evaluate(index)
                if ((density > self.level) != inside[some.unbind(1)]).any():
                    return True
        return False


def sparse_grid(field: Field, resolution: int, level: float, random: torch.Generator) -> SparseGrid:
    """Evaluate the field where its surface may lie, on a grid of `resolution` points a side."""
    search = _Search(field, resolution, level)
    corners = search.corners()
    active = may_hold_surface(corners, level)
    fresh = active
    while fresh.any():
        search.fill(fresh)
        fresh = search.blocks_beyond(fresh) & ~active
        active = active | fresh
    inside = corners[:-1, :-1, :-1] > level
    overlooked = search.is_overlooked(~active, inside, random)
    return SparseGrid(
        search.padded, active, search.lowest, search.highest, search.evaluations, overlooked
    )


def may_hold_surface(corners: Tensor, level: float) -> Tensor:
    """Blocks [n, n, n] where the field may cross the level, by the corners [n + 1, n + 1, n + 1].

    Between points at the distance h a function strays from its linear interpolation by at most
    h^2/8 times its second derivative, along each axis; second differences estimate that.
    """
    bends = torch.zeros_like(corners)
    for axis in range(3):
        along = corners.movedim(axis, 0)
        if len(along) > 2:
            bend = along.diff(n=2, dim=0).abs()
            bends += torch.cat([bend[:1], bend, bend[-1:]]).movedim(0, axis)
    overshoot = SAFETY / 8 * _largest(bends)
    highest, lowest = _largest(corners), -_largest(-corners)
    active = (lowest - overshoot <= level) & (level < highest + overshoot)
    # What reaches the cube's faces is cut off there: that surface needs its grid points, too.
    walls = torch.ones_like(active)
    walls[1:-1, 1:-1, 1:-1] = False
    return active | (walls & (level < highest + overshoot))


def _largest(corners: Tensor) -> Tensor:
    """Of the 8 corners of each block: [n + 1, n + 1, n + 1] -> [n, n, n]."""
    return F.max_pool3d(corners[None, None], kernel_size=2, stride=1)[0, 0]


def cells_to_march(active: Tensor, resolution: int) -> np.ndarray:
    """Which cells of the padded grid may hold surface: bool [R + 2, R + 2, R + 2].

    A cell stands at the index of its upper corner. active: marked blocks [n, n, n]. Cells between
    the grid and the layer round it belong with the cells next to them.
    """
    cell = (np.arange(resolution + 2) - 2).clip(0, resolution - 2)
    block = cell // BLOCK
    return active.numpy()[:, block][:, :, block][block]
