"""A detector, photographs and a network that are numbers rather than trained."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metrics.context import Context, ImageSet, Views
from metrics.runner import Runner


class StandIn(torch.nn.Module):
    """The signature of the field's Inception file; features are the means of 4 x 4 patches."""

    def forward(
        self, images: Tensor, return_features: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        patches = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)
        if return_features:
            return patches
        bias = 0.0 if no_output_bias else 100.0
        logits = patches[:, :10] * 20
        logits[:, 0] += bias
        return logits.softmax(dim=1)


def save_stand_in(path: Path) -> Path:
    torch.jit.script(StandIn()).save(str(path))
    return path


def colored_noise(count: int, seed: int, mean: float = 100.0, size: int = 16) -> Tensor:
    """uint8 [count, 3, size, size] whose patches vary from image to image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator) * 30 + mean
    images = torch.nn.functional.interpolate(coarse, size=size)
    return images.clamp(0, 255).to(torch.uint8)


class FakeModel:
    """Draws `images`; its discriminator estimates direction i of a picture that says i."""

    def __init__(self, images: Tensor, directions: Tensor):
        self.images, self.drawn = images, directions

    def sample(self, indices: range) -> Tensor:
        return self.images[list(indices)] / 127.5 - 1

    def directions(self, indices: range) -> Tensor:
        return self.drawn[list(indices)]

    def estimate_directions(self, images: Tensor) -> Tensor:
        return self.drawn[images[:, 0, 0, 0].long()]

    def views(self, indices: range, yaws: Sequence[float]) -> Views:
        raise NotImplementedError


def numbered_images(count: int) -> Tensor:
    """uint8 [count, 3, 8, 8], each filled with its number."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)


def directions(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    yaw, pitch = torch.randn(2, count, generator=generator, dtype=torch.float64) * 0.4
    return torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], dim=1)


def make_context(model, photographs: Tensor, true: Tensor | None = None, **changes) -> Context:
    taken = ImageSet(photographs, f"{photographs.double().sum().item()} {math.pi}")
    runner = Runner(torch.device("cpu"))
    return Context(model, taken, taken, true, runner, **changes)
