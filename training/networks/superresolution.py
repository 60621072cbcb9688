"""From the rendered features to the final image: two synthesis blocks fed with the last w.

One class; what differs between image sizes is in SIZES.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.layers import SynthesisBlock


class SuperResolutionSize(NamedTuple):
    """input: resolution that features are brought to; widths and upsampling of the two blocks."""

    input: int
    widths: tuple[int, int]
    up: tuple[int, int]


SIZES = {
    128: SuperResolutionSize(64, (128, 64), (1, 2)),
    256: SuperResolutionSize(128, (128, 64), (1, 2)),
    512: SuperResolutionSize(128, (256, 128), (2, 2)),
}
CLAMP = 256.0  # bounds activations, so that half precision does not overflow


class SuperResolution(nn.Module):
    """Super-resolution module of EG3D (Chan et al. 2022, section 4.2).

    `inner_dtype` is the precision inside the blocks; None takes that of the input.
    """

    inner_dtype: torch.dtype | None = None

    def __init__(self, channels: int, w_dim: int, resolution: int):
        super().__init__()
        size = SIZES[resolution]
        self.input_resolution = size.input
        block0_resolution = size.input * size.up[0]
        self.block0 = SynthesisBlock(
            channels, size.widths[0], w_dim, block0_resolution, 3, up=size.up[0], clamp=CLAMP
        )
        self.block1 = SynthesisBlock(
            size.widths[0], size.widths[1], w_dim, resolution, 3, up=size.up[1], clamp=CLAMP
        )

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """Rendered features to the final image.

        Args:
            features: [B, C, h, h]; the first three channels are the raw image, in [-1, 1].
            w: [B, w_dim], the last layer's.

        Returns:
            [B, 3, R, R], about [-1, 1].
        """
        if features.shape[-1] != self.input_resolution:
            features = F.interpolate(
                features, size=self.input_resolution, mode="bilinear", align_corners=False
            )
        ws = w[:, None].expand(-1, 3, -1)
        dtype = self.inner_dtype or features.dtype
        x, image = self.block0(features, features[:, :3], ws, "none", dtype)
        _, image = self.block1(x, image, ws, "none", dtype)
        return image
