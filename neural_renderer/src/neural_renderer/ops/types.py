"""Records that the kernels take and give."""

from typing import NamedTuple

from torch import Tensor


class View(NamedTuple):
    """How faces are seen: by size x size pixels, between two depths.

    With `perspective`, screen positions are taken to be x/z and y/z, so that 1/z is what varies
    linearly over the screen; else z does.
    """

    size: int
    near: float
    far: float
    perspective: bool


class Fragments(NamedTuple):
    """What each pixel sees. S is the size of the image."""

    index: Tensor  # [B, S, S] int32, the face in front; -1 for background
    weights: Tensor  # [B, 3, S, S], its barycentric weights in space; 0 for background
    depth: Tensor  # [B, S, S]; `far` for background


class Lines(NamedTuple):
    """A batch of images seen as lines of pixels, along which edges are swept.

    `orientation` is +1 if a face lies toward larger `along` of those of its edges whose `across`
    grows from the first vertex to the second, else -1.
    """

    along: Tensor  # [B, F, 3] double, where vertices lie along the lines, in pixels
    across: Tensor  # [B, F, 3] double, in which line
    z: Tensor  # [B, F, 3] double
    orientation: int
    index: Tensor  # [B, L, N]
    depth: Tensor  # [B, L, N]
    image: Tensor  # [B, C, L, N]
    grad: Tensor  # [B, C, L, N], d loss / d image
    loss: Tensor  # [B, L, N], grad . image: what the pixels' colours contribute to the loss
