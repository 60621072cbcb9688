"""Upsample, filter, downsample: the resampling of StyleGAN2 (Karras et al. 2020, appendix B)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resample_filter(taps: Sequence[float] | Tensor) -> Tensor:
    """A [h, w] filter of sum 1; one-dimensional taps give their outer product."""
    taps = torch.as_tensor(taps, dtype=torch.float32)
    kernel = torch.outer(taps, taps) if taps.ndim == 1 else taps
    return kernel / kernel.sum()


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def upfirdn2d(
    x: Tensor,
    kernel: Tensor,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: Sequence[int] = (0, 0, 0, 0),
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Zero-insert by `up`, pad, convolve with `kernel` x `gain`, keep every `down`-th pixel.

    x: [B, C, H, W]. kernel: [h, w]. up, down: one factor or (x, y). padding: (x0, x1, y0, y1),
    counted after zero insertion; negative values crop. flip_filter correlates instead.
    Returns [B, C, H', W'] with H' = (H * up_y + y0 + y1 - h) // down_y + 1, and is differentiable
    in x any number of times.
    """
    kernel = (kernel * gain).to(x.dtype)
    kernel = kernel.flip([0, 1]) if flip_filter else kernel
    if _pair(up) == (1, 1):
        return _filter(x, kernel.flip([0, 1]), _pair(down), padding)
    down_x, down_y = _pair(down)
    return _enlarge(x, kernel, _pair(up), padding)[:, :, ::down_y, ::down_x]


def _per_channel(kernel: Tensor, x: Tensor) -> Tensor:
    return kernel.expand(x.shape[1], 1, *kernel.shape)


def _filter(x: Tensor, kernel: Tensor, down: tuple[int, int], padding: Sequence[int]) -> Tensor:
    """Pad, correlate, subsample. The convolution itself pads where both sides agree: no copy."""
    x0, x1, y0, y1 = padding
    inner = (max(min(y0, y1), 0), max(min(x0, x1), 0))
    x = _pad(x, (x0 - inner[1], x1 - inner[1], y0 - inner[0], y1 - inner[0]))
    weight = _per_channel(kernel, x)
    return F.conv2d(x, weight, stride=(down[1], down[0]), padding=inner, groups=x.shape[1])


def _enlarge(x: Tensor, kernel: Tensor, up: tuple[int, int], padding: Sequence[int]) -> Tensor:
    """Zero-insert, pad, convolve, as a transposed convolution, which multiplies no zeros.

    Its result spans every pixel that the kernel touches; `crop` pixels at its rim are too many.
    """
    height, width = kernel.shape
    x0, x1, y0, y1 = padding
    crop = (width - 1 - x0, width - up[0] - x1, height - 1 - y0, height - up[1] - y1)
    inner = (max(min(crop[2:]), 0), max(min(crop[:2]), 0))
    weight = _per_channel(kernel, x)
    y = F.conv_transpose2d(x, weight, stride=(up[1], up[0]), padding=inner, groups=x.shape[1])
    return _pad(y, (inner[1] - crop[0], inner[1] - crop[1], inner[0] - crop[2], inner[0] - crop[3]))


def _pad(x: Tensor, padding: Sequence[int]) -> Tensor:
    return F.pad(x, list(padding)) if any(padding) else x
