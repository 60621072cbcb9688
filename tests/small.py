"""Networks small enough for tests that take milliseconds."""

from typing import Any

import torch

from training.config import Config
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import build_config

SMALL = {
    "generator.z_dim": 16,
    "generator.w_dim": 16,
    "generator.channel_base": 512,
    "generator.channel_max": 16,
    "generator.plane_resolution": 16,
    "generator.plane_channels": 4,
    "generator.decoder_hidden": 8,
    "generator.feature_channels": 4,
    "discriminator.channel_base": 512,
    "discriminator.channel_max": 16,
    "rendering.raw_resolution": 32,
    "rendering.samples": 6,
    "rendering.importance_samples": 6,
}
# The image is the rendering itself: no super-resolution, a single image to discriminate.
PLAIN = SMALL | {"data.resolution": 32, "discriminator.dual": False}
# The image is super-resolved and judged beside its raw rendering.
DUAL = SMALL | {"data.resolution": 128, "rendering.raw_resolution": 16}


def small_config(sizes: dict[str, Any] = PLAIN, **changes: Any) -> Config:
    """changes: section__field=value."""
    named = {key.replace("__", ".", 1): value for key, value in changes.items()}
    return build_config("ffhq", sizes | named)


def small_generator(sizes: dict[str, Any] = PLAIN, seed: int = 0, **changes: Any) -> Generator:
    torch.manual_seed(seed)
    return Generator(small_config(sizes, **changes))


def small_discriminator(
    sizes: dict[str, Any] = PLAIN, seed: int = 0, **changes: Any
) -> Discriminator:
    torch.manual_seed(seed)
    return Discriminator(small_config(sizes, **changes))
