"""w -> tri-planes: StyleGAN2's 'skip' synthesis network, its image being the planes."""

import torch
from torch import Tensor, nn

from dnnlib import UserError
from torch_utils.ops.triplane_render import as_texels
from training.config import GeneratorConfig
from training.networks.layers import SynthesisBlock
from training.networks.mapping import GeneratorMapping


def channels_at(resolution: int, base: int, most: int) -> int:
    """Width of all networks at a resolution: min(base / resolution, most).

    Raises:
        UserError: where no channels would be left.
    """
    width = min(base // resolution, most)
    if width < 1:
        raise UserError(
            f"a channel_base of {base} leaves no channels at {resolution} px: "
            f"make it {resolution} or more"
        )
    return width


class SynthesisNetwork(nn.Module):
    """StyleGAN2's synthesis network with skip connections (Karras et al. 2020, section 4.1).

    num_ws = 2 log2(resolution) - 2: one for each convolution, and the last ToRGB's.
    `inner_dtype` is the precision of activations; None takes that of ws.
    """

    inner_dtype: torch.dtype | None = None

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

    def blocks(self) -> list[SynthesisBlock]:
        """From the lowest resolution up."""
        return [getattr(self, f"b{res}") for res in self.resolutions]

    def forward(self, ws: Tensor, noise: str) -> Tensor:
        """ws: [B, num_ws, w_dim] -> [B, channels, resolution, resolution].

        noise: 'random', 'const' or 'none'; see `SynthesisLayer.forward`.
        """
        x: Tensor | None = None
        image: Tensor | None = None
        start = 0
        for block in self.blocks():
            styles = ws[:, start : start + block.layer_count + 1]
            x, image = block(x, image, styles, noise, self.inner_dtype or ws.dtype)
            start += block.layer_count
        assert image is not None  # there is a block
        return image


class Backbone(nn.Module):
    """The mapping and the synthesis of the planes; named as in published checkpoints.

    `depth_reversed` says whether objects are reflected in the plane z = 0 (`depth_reversal`); it is
    None where that is never tried, as in published checkpoints.
    """

    depth_reversed: Tensor | None

    def __init__(
        self, mapping: GeneratorMapping, synthesis: SynthesisNetwork, sizes: GeneratorConfig
    ):
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis
        self.plane_channels = sizes.plane_channels
        reversible = sizes.depth_trial_kimg is not None
        self.register_buffer("depth_reversed", torch.tensor(False) if reversible else None)

    def planes(self, ws: Tensor, noise: str) -> Tensor:
        """Tri-planes [B, 3, plane channels, resolution, resolution] of ws [B, num_ws, w_dim].

        noise: see `SynthesisNetwork.forward`. They lie in memory as `triplane_render` reads them.
        """
        planes = self.synthesis(ws, noise).unflatten(1, (3, self.plane_channels))
        if self.depth_reversed is not None:
            planes = torch.where(self.depth_reversed, _with_reversed_depth(planes), planes)
        return as_texels(planes)


def _with_reversed_depth(planes: Tensor) -> Tensor:
    """Tri-planes of the object reflected in the plane z = 0; all sets of axes have z there."""
    xy, xz, zy = planes.unbind(1)
    return torch.stack([xy, xz.flip(-2), zy.flip(-1)], dim=1)
