"""The discriminator: one trunk, two heads (PoF3D section 3.3).

The pose head estimates the camera pose of an image and is trained on generated ones, whose pose is
known. The score head tells real from fake conditioned on that estimate, so that photographs need no
pose labels.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dnnlib import UserError
from torch_utils.images import resize, to_float
from training.config import Config
from training.networks.backbone import channels_at
from training.networks.layers import Conv2d, FullyConnected, as_activations, minibatch_std
from training.networks.mapping import MappingNetwork

CLAMP = 256.0
POSE_DIM = 2


class DiscriminatorOutput(NamedTuple):
    """score: [B, 1], positive for real. pose: [B, 2], the estimate of (h, v) in radians."""

    score: Tensor
    pose: Tensor


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the resolution; the first one also reads the image."""

    inner_dtype: torch.dtype | None = None

    def __init__(self, image_channels: int, in_channels: int, out_channels: int):
        super().__init__()
        if image_channels:
            self.fromrgb = Conv2d(image_channels, in_channels, 1, act="lrelu", clamp=CLAMP)
        self.conv0 = Conv2d(in_channels, in_channels, 3, act="lrelu", clamp=CLAMP)
        self.conv1 = Conv2d(in_channels, out_channels, 3, act="lrelu", down=2, clamp=CLAMP)
        self.skip = Conv2d(in_channels, out_channels, 1, bias=False, down=2)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, in, H, W] -> [B, out, H/2, W/2]; in the first block, x is [B, image, H, W]."""
        x = as_activations(x, self.inner_dtype)
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        skip = self.skip(x, gain=math.sqrt(0.5))
        return skip + self.conv1(self.conv0(x), gain=math.sqrt(0.5))


class DiscriminatorEpilogue(nn.Module):
    """The two heads, at 4 x 4."""

    def __init__(self, channels: int, group_size: int):
        super().__init__()
        self.group_size = group_size
        self.conv = Conv2d(channels + 1, channels, 3, act="lrelu", clamp=CLAMP)
        self.fc = FullyConnected(channels * 16, channels, act="lrelu")
        self.out = FullyConnected(channels, channels)
        self.cam_out1 = FullyConnected(channels * 16, channels * 8, act="lrelu")
        self.cam_out2 = FullyConnected(channels * 8, POSE_DIM)

    def forward(self, x: Tensor, batches: int) -> tuple[Tensor, Tensor]:
        """x: [B, C, 4, 4] -> features to be scored [B, C], pose [B, 2]."""
        x = self.conv(minibatch_std(x, self.group_size, batches)).flatten(1)
        return self.out(self.fc(x)), self.cam_out2(self.cam_out1(x))


class Discriminator(nn.Module):
    """Build with a `Config`; parameter names are those of published checkpoints."""

    def __init__(self, config: Config):
        super().__init__()
        sizes = config.discriminator
        self.config = config
        self.dual = sizes.dual
        self.resolution = config.data.resolution
        self.block_resolutions = [2**i for i in range(self.resolution.bit_length() - 1, 2, -1)]

        def width(resolution: int) -> int:
            return channels_at(resolution, sizes.channel_base, sizes.channel_max)

        image_channels = 6 if self.dual else 3
        for resolution in self.block_resolutions:
            block = DiscriminatorBlock(image_channels, width(resolution), width(resolution // 2))
            self.add_module(f"b{resolution}", block)
            image_channels = 0
        self.b4 = DiscriminatorEpilogue(width(4), sizes.group_size)
        self.mapping = MappingNetwork(0, POSE_DIM, width(4), layers=sizes.mapping_layers)
        for block in self.blocks()[: sizes.freeze_blocks]:
            block.requires_grad_(False)

    def blocks(self) -> list[DiscriminatorBlock]:
        """From the highest resolution down."""
        return [getattr(self, f"b{resolution}") for resolution in self.block_resolutions]

    def set_inner_dtype(self, dtype: torch.dtype | None) -> None:
        """Precision of activations: of all blocks in bf16, of the first ones in fp16."""
        first = self.config.discriminator.half_precision_blocks
        for i, block in enumerate(self.blocks()):
            block.inner_dtype = dtype if dtype == torch.bfloat16 or i < first else None

    def forward(
        self,
        image: Tensor,
        raw: Tensor | None = None,
        condition: Tensor | None = None,
        *,
        batches: int = 1,
    ) -> DiscriminatorOutput:
        """Score images and estimate their poses.

        Args:
            image: [B, 3, R, R] in [-1, 1].
            raw: [B, 3, r, r], the raw renderings, resized here; needed for dual discrimination
                (EG3D, section 4.3), ignored otherwise.
            condition: [B, 2], the poses that the scores are conditioned on, in radians; None: the
                estimates, without gradient.
            batches: how many, of equal size, B spans; minibatch statistics do not mix them.

        Raises:
            UserError: where dual discrimination lacks the raw renderings.
        """
        x = image
        if self.dual:
            if raw is None:
                raise UserError("dual discrimination needs the raw renderings beside the images")
            x = torch.cat([image, resize(raw, self.resolution)], dim=1)
        for block in self.blocks():
            x = block(x)
        features, pose = self.b4(x, batches)
        target = self.mapping(c=pose.detach() if condition is None else condition)
        score = (features * target).sum(dim=1, keepdim=True) / math.sqrt(features.shape[1])
        return DiscriminatorOutput(score, pose)

    @torch.no_grad()
    def estimate_pose(self, images: Tensor, raw_resolution: int | None = None) -> Tensor:
        """Estimate from which poses images were taken.

        The images of a batch have a small influence on each other's poses (minibatch statistics).

        Args:
            images: [B, 3, R, R], uint8, or float in [-1, 1].
            raw_resolution: pixels a side of the raw renderings that accompanied generated images
                in training, which dual discrimination imitates; None: the config's.

        Returns:
            (h, v) [B, 2] in radians, without gradient.

        Raises:
            UserError: for images of another size.
        """
        if images.shape[1:] != (3, self.resolution, self.resolution):
            raise UserError(
                f"images of shape {list(images.shape)}: this network takes "
                f"[B, 3, {self.resolution}, {self.resolution}]; resize them first"
            )
        images = images.to(self.b4.cam_out2.weight.device)
        images = images if images.is_floating_point() else to_float(images)
        raw = resize(images, raw_resolution or self.config.rendering.raw_resolution)
        return self(images, raw).pose
