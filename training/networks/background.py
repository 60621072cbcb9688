"""What is behind an object: a picture that does not turn with the camera.

Not in PoF3D. Were the background a part of the object, cameras would be told apart by how it turns,
and those of photographs, whose backgrounds do not turn, could not be. PanoHead (An et al., CVPR
2023) has a background in two dimensions as well, but needs masks of its photographs; here it is too
coarse to show an object. In training it moves to the side besides: one that stands still paints the
skin of heads, seen through objects that are no more than outlines, and poses are not found.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.backbone import SynthesisNetwork

RESOLUTION = 16  # pixels a side
CHANNELS = 32


class Background(nn.Module):
    """A small StyleGAN2 of features, each of them in [0, 1]."""

    def __init__(self, w_dim: int, features: int):
        super().__init__()
        self.synthesis = SynthesisNetwork(
            w_dim, RESOLUTION, features, channel_base=RESOLUTION * CHANNELS, channel_max=CHANNELS
        )
        self.num_ws = self.synthesis.num_ws

    def forward(self, ws: Tensor, features: Tensor, opacity: Tensor) -> Tensor:
        """Renderings of objects before their backgrounds, [B V, F, r, r] in [-1, 1].

        In training mode each view has the background at a place of its own.

        Args:
            ws: [B, num_ws, w_dim].
            features: [B V, F, r, r] in [-1, 1], renderings of the same objects from V sides each,
                before black.
            opacity: [B V, 1, r, r] of these.
        """
        image = torch.sigmoid(self.synthesis(ws, "none"))
        image = image.repeat_interleave(len(features) // len(ws), dim=0)
        if self.training:
            image = _shifted(image)
        image = F.interpolate(image, features.shape[-2:], mode="bilinear", align_corners=False)
        return features + 2 * (1 - opacity) * image


def _shifted(image: Tensor) -> Tensor:
    """Pictures [N, F, H, W], each moved to the side, any number of columns, reflected at edges."""
    width = image.shape[-1]
    shift = torch.randint(2 * width, [len(image), 1, 1, 1], device=image.device)
    columns = (torch.arange(width, device=image.device) + shift) % (2 * width)
    columns = torch.minimum(columns, 2 * width - 1 - columns)
    return image.gather(-1, columns.expand_as(image))
