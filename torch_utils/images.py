"""Images as tensors: number types, resizing, blurring. All are [..., C, H, W]."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_float(image: Tensor) -> Tensor:
    """Map uint8 values 0..255 to float32 in [-1, 1]."""
    return image.to(torch.float32) / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Map values in [-1, 1] to the nearest of 0..255; values outside are clamped."""
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def resize(image: Tensor, resolution: int) -> Tensor:
    """Resize [B, C, H, W] to [B, C, resolution, resolution]: bilinear, without antialiasing."""
    if image.shape[-1] == resolution:
        return image
    return F.interpolate(image, size=resolution, mode="bilinear", align_corners=False)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Filter [B, C, H, W] with exp2(-(x / sigma)^2), radius floor(3 sigma) pixels, zero padding."""
    radius = int(sigma * 3)
    if radius == 0:
        return image
    channels = image.shape[1]
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
    taps = torch.exp2(-((x / sigma) ** 2))
    taps = (taps / taps.sum()).to(image.dtype).expand(channels, 1, 1, -1)
    image = F.conv2d(image, taps, padding=(0, radius), groups=channels)
    return F.conv2d(image, taps.mT, padding=(radius, 0), groups=channels)
