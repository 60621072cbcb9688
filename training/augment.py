"""Adaptive augmentation for the discriminator (ADA, Karras et al. 2020b, arXiv 2006.06676).

Of ADA's transforms only those are used that leave an image's camera true: no flips, no rotations.
What remains of the geometry is parallel to the axes, so one matrix per axis resamples a picture;
what remains of the color acts along and round the gray axis. Both are plain matrix products,
which R1 regularization can differentiate twice.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torch_utils.devices import constant

# Strengths of Karras et al. 2020b, appendix B. Shifts are in image sizes, scales in octaves.
WHOLE_SHIFT_MAX = 0.125
ZOOM_STD = 0.2
STRETCH_STD = 0.2
SHIFT_STD = 0.125
BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5
SATURATION_STD = 1.0

LANCZOS_LOBES = 3

# (image, raw or None) -> (image, raw or None), differentiable.
Augment = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]

GEOMETRIC = 4  # of AugmentParams, the first; the others change colors


class AugmentParams(NamedTuple):
    """Transforms of each picture of a batch, in this order; zero is neutral everywhere."""

    whole_shift: Tensor  # [B, 2], (x, y) in image sizes, a whole number of pixels
    zoom: Tensor  # [B], log2 of the scale of both axes; > 0 enlarges
    stretch: Tensor  # [B], log2 of the scale of x and of 1 / the scale of y
    shift: Tensor  # [B, 2], (x, y) in image sizes
    brightness: Tensor  # [B], added to every channel
    contrast: Tensor  # [B], log2 of a factor
    luma_flip: Tensor  # [B], 1 turns bright to dark and keeps the hue
    hue: Tensor  # [B], radians round the gray axis
    saturation: Tensor  # [B], log2 of a factor


class Augmentation(nn.Module):
    """Applies each transform to each sample with probability `p`, a buffer that ADA adjusts.

    A fixed strength gives `p` at construction (usually 0.2); an adaptive one starts at 0. p stays
    on the CPU, which asks for it all the time: do not move this module to a device.
    """

    p: Tensor

    def __init__(self, p: float = 0.0):
        super().__init__()
        self.register_buffer("p", torch.tensor(float(p)))

    def forward(
        self,
        image: Tensor,
        raw: Tensor | None = None,
        generator: torch.Generator | None = None,
        color_p: Tensor | float | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Transform an image and its raw rendering alike.

        Args:
            image: [B, 3, H, W] in [-1, 1].
            raw: [B, 3, h, w], the same views at another resolution, or None.
            generator: of random numbers, on the images' device; None: that device's own.
            color_p: the probability of transforms of color, where it is larger than p.

        Returns:
            New tensors of the same shapes and types; at p = 0, and without color_p, the inputs
            themselves.
        """
        if self.p == 0 and color_p is None:
            return image, raw
        # Whole pixels of the coarser picture are whole pixels of the finer one as well.
        coarsest = image if raw is None else min(image, raw, key=lambda picture: picture.shape[-1])
        params = draw(coarsest, self.p, generator, color_p)
        moves = bool(self.p > 0)
        return augment(image, params, moves), None if raw is None else augment(raw, params, moves)


def draw(
    picture: Tensor,
    p: Tensor,
    generator: torch.Generator | None = None,
    color_p: Tensor | float | None = None,
) -> AugmentParams:
    """Random transforms for a [B, 3, H, W] batch, whole in its pixels, each with probability p.

    color_p: the probability of transforms of color, where it is larger than p.
    """
    batch, _, height, width = picture.shape
    device, transforms = picture.device, len(AugmentParams._fields)
    chance = torch.rand(batch, transforms, device=device, generator=generator)
    gate = chance < p
    if color_p is not None:
        gate[:, GEOMETRIC:] |= chance[:, GEOMETRIC:] < color_p
    gate = gate.float()
    normal = torch.randn(batch, 7, device=device, generator=generator)
    uniform = torch.rand(batch, 4, device=device, generator=generator)

    on = AugmentParams(*gate.split(1, dim=1))
    pixels = constant([width, height], gate)
    whole_shift = (WHOLE_SHIFT_MAX * (2 * uniform[:, :2] - 1) * pixels).round() / pixels
    return AugmentParams(
        whole_shift=on.whole_shift * whole_shift,
        zoom=on.zoom[:, 0] * ZOOM_STD * normal[:, 0],
        stretch=on.stretch[:, 0] * STRETCH_STD * normal[:, 1],
        shift=on.shift * SHIFT_STD * normal[:, 2:4],
        brightness=on.brightness[:, 0] * BRIGHTNESS_STD * normal[:, 4],
        contrast=on.contrast[:, 0] * CONTRAST_STD * normal[:, 5],
        luma_flip=on.luma_flip[:, 0] * (uniform[:, 2] < 0.5),
        hue=on.hue[:, 0] * math.pi * (2 * uniform[:, 3] - 1),
        saturation=on.saturation[:, 0] * SATURATION_STD * normal[:, 6],
    )


def augment(picture: Tensor, params: AugmentParams, moves: bool = True) -> Tensor:
    """Apply `params` to a [B, 3, H, W] picture of any size; works in float32 at least.

    moves: whether transforms of geometry are among them; False: all of those are neutral.
    """
    dtype = torch.promote_types(picture.dtype, torch.float32)
    params = AugmentParams(*(parameter.to(dtype) for parameter in params))
    moved = resample(picture.to(dtype), params) if moves else picture.to(dtype)
    return recolor(moved, params).to(picture.dtype)


def resample(picture: Tensor, params: AugmentParams) -> Tensor:
    """Shift and scale about the center; beyond its border the picture goes on as in a mirror.

    picture: [B, C, H, W]. Returns the same shape.
    """
    scale = 2 ** torch.stack([params.zoom + params.stretch, params.zoom - params.stretch], dim=1)
    # The inverse of x -> scale * (x + whole_shift) + shift is x / scale + offset.
    offset = -params.shift / scale - params.whole_shift
    along_x = _resampling_matrix(picture.shape[-1], scale[:, 0], offset[:, 0])
    along_y = _resampling_matrix(picture.shape[-2], scale[:, 1], offset[:, 1])
    return along_y[:, None] @ picture @ along_x[:, None].mT


def _resampling_matrix(pixels: int, scale: Tensor, offset: Tensor) -> Tensor:
    """[B, pixels, pixels], row i: the weights of a line's pixels in pixel i of the moved line.

    Weights are Lanczos', whose kernel is widened where the picture shrinks (against aliasing) and
    leaves whole-pixel shifts exact. scale, offset: [B]; offset in units of the line's length.
    """
    centers = torch.arange(pixels, device=scale.device, dtype=scale.dtype) + 0.5
    middle = pixels / 2
    source = (centers - middle) / scale[:, None] + offset[:, None] * pixels + middle
    # The line extended by reflection is even and has period 2 * pixels, and so has its Lanczos
    # interpolation: fold the source into the line; then the nearest images of each pixel suffice.
    folded = pixels - (source.remainder(2 * pixels) - pixels).abs()
    widening = (1 / scale).clamp(min=1)[:, None, None]
    taps = (centers, -centers, 2 * pixels - centers)
    distances = [(folded[:, :, None] - centers) / widening for centers in taps]
    weights = sum(map(_lanczos, distances), start=torch.zeros(()))
    return weights / weights.sum(dim=-1, keepdim=True)


def _lanczos(x: Tensor) -> Tensor:
    return torch.sinc(x) * torch.sinc(x / LANCZOS_LOBES) * (x.abs() < LANCZOS_LOBES)


def recolor(picture: Tensor, params: AugmentParams) -> Tensor:
    """Brightness, contrast, luma flip, hue and saturation as one affine map of RGB.

    The luma axis is gray, (1, 1, 1)/sqrt(3): brightness and flip act along it, hue and saturation
    across it, contrast on both. picture: [B, 3, H, W]. Returns the same shape.
    """
    luma = picture.new_full((3, 3), 1 / 3)
    chroma = torch.eye(3, device=picture.device, dtype=picture.dtype) - luma
    quarter_turn = constant([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], picture) / math.sqrt(3)
    contrast = 2**params.contrast
    along = contrast * (1 - 2 * params.luma_flip)
    across = contrast * 2**params.saturation
    matrix = (
        along[:, None, None] * luma
        + (across * params.hue.cos())[:, None, None] * chroma
        + (across * params.hue.sin())[:, None, None] * quarter_turn
    )
    recolored = torch.einsum("bij,bjhw->bihw", matrix, picture)
    return recolored + (along * params.brightness)[:, None, None, None]


class AdaController:
    """Raises p while the discriminator overfits, and lowers it while it does not.

    Overfitting is measured by r_t = mean sign(D(real)) (Karras et al. 2020b, section 3.1). p lives
    in the augmentation's own state; `state_dict` holds what was counted since p last moved.

    Args:
        augmentation: whose p is adjusted.
        kimg_per_unit: thousands of real images after which p has moved by 1.
        target: the r_t to hold.
        interval: steps between adjustments of p.
    """

    def __init__(
        self, augmentation: Augmentation, kimg_per_unit: float, *, target: float, interval: int
    ):
        self.augmentation = augmentation
        self.kimg_per_unit = kimg_per_unit
        self.target = target
        self.interval = interval
        self._restart_count()

    def _restart_count(self) -> None:
        self._steps, self._reals = 0, 0
        self._signs: Tensor | float = 0.0

    def step(self, signs: Tensor | float, reals: int) -> None:
        """Count one training step; every `interval` steps, adjust p.

        Args:
            signs: sum of sign(D(real)) over the real images of all processes; a tensor is read only
                when p is adjusted.
            reals: their number.
        """
        self._steps += 1
        self._signs = self._signs + signs
        self._reals += int(reals)
        if self._steps < self.interval:
            return
        excess = float(self._signs) - self.target * self._reals
        distance = self._reals / (1000 * self.kimg_per_unit)
        p = self.augmentation.p
        p.copy_((p + ((excess > 0) - (excess < 0)) * distance).clamp(0, 1))
        self._restart_count()

    def state_dict(self) -> dict[str, float]:
        """The counts since p was last adjusted."""
        return {"steps": self._steps, "signs": float(self._signs), "reals": self._reals}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from the counts of `state_dict`."""
        self._steps, self._reals = int(state["steps"]), int(state["reals"])
        self._signs = float(state["signs"])
