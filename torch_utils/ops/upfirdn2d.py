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
    Returns [B, C, H', W'] with H' = (H * up_y + y0 + y1 - h) // down_y + 1.
    """
    batch, channels, height, width = x.shape
    up_x, up_y = _pair(up)
    down_x, down_y = _pair(down)
    if up_x * up_y > 1:
        x = x.reshape(batch, channels, height, 1, width, 1)
        x = F.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])
        x = x.reshape(batch, channels, height * up_y, width * up_x)
    x = F.pad(x, list(padding))
    kernel = (kernel * gain).to(x.dtype)
    kernel = kernel if flip_filter else kernel.flip([0, 1])
    weight = kernel.expand(channels, 1, *kernel.shape)
    return F.conv2d(x, weight, stride=(down_y, down_x), groups=channels)
