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

    face_index: Tensor  # [B, S, S] int32, the face in front; -1 for background
    weights: Tensor  # [B, 3, S, S], its barycentric weights in space; 0 for background
    depth: Tensor  # [B, S, S]; `far` for background
