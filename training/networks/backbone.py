"""w -> tri-planes: StyleGAN2's 'skip' synthesis network, its image being the planes."""

import torch
from torch import Tensor, nn

from dnnlib import UserError
from training.networks.layers import SynthesisBlock


def channels_at(resolution: int, base: int, most: int) -> int:
    """Width of all networks at a resolution. Raises UserError where nothing would be left."""
    width = min(base // resolution, most)
    if width < 1:
        raise UserError(
            f"a channel_base of {base} leaves no channels at {resolution} px: "
            f"make it {resolution} or more"
        )
    return width


class SynthesisNetwork(nn.Module):
    """ws [B, num_ws, w_dim] -> image [B, channels, resolution, resolution].

    num_ws = 2 log2(resolution) - 2: one for each convolution, and the last ToRGB's.
    """

    def __init__(
        self, w_dim: int, resolution: int, channels: int, *, channel_base: int, channel_max: int
    ):
        super().__init__()
        self.resolutions = [2**i for i in range(2, resolution.bit_length())]
        self.num_ws = 2 * len(self.resolutions)
        width = 0
        for res in self.resolutions:
            next_width = channels_at(res, channel_base, channel_max)
            self.add_module(f"b{res}", SynthesisBlock(width, next_width, w_dim, res, channels))
            width = next_width

    def forward(self, ws: Tensor, noise: str) -> Tensor:
        x = image = None
        start = 0
        for res in self.resolutions:
            block = self.get_submodule(f"b{res}")
            styles = ws[:, start : start + block.layer_count + 1]
            x, image = block(x, image, styles, noise, ws.dtype)
            start += block.layer_count
        return image


class Backbone(nn.Module):
    """The mapping and the synthesis of the planes; named as in published checkpoints."""

    def __init__(self, mapping: nn.Module, synthesis: SynthesisNetwork, plane_channels: int):
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis
        self.plane_channels = plane_channels

    def planes(self, ws: Tensor, noise: str) -> Tensor:
        """ws [B, num_ws, w_dim] -> [B, 3, plane channels, resolution, resolution]."""
        return torch.unflatten(self.synthesis(ws, noise), 1, (3, self.plane_channels))
