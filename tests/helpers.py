"""Networks, runs and data small enough for tests; patience with other processes."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.tiny import TINY
from training.config import Config
from training.feedback import Diversity
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import build_config

# Seconds for what takes a few on a machine that does nothing else; only failures use them up.
PATIENCE = 600


def wait_until(condition: Callable[[], object], failure: str = "waited in vain") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, failure
        time.sleep(0.05)


# A run that takes a second.

# Network and rendering sizes; the rest of the toy preset stays as it is.
SIZES = TINY | {
    "data.workers": 0,
    "run.batch": 4,
    "run.seed": 1,
    "run.precision": "fp32",  # the same results on every processor
}


def tiny_config(data: Path | None = None, **changes) -> Config:
    """changes: 'section__field=value'."""
    wanted = {key.replace("__", "."): value for key, value in changes.items()}
    path = {} if data is None else {"data.path": str(data)}
    return build_config("toy", SIZES | path | wanted)


def tiny_arguments() -> list[str]:
    """The same sizes for the command line of train.py."""
    own_options = {"data.workers", "run.batch", "run.seed", "run.precision"}
    arguments = []
    for key, value in SIZES.items():
        option = f"--{key.partition('.')[2]}"
        arguments += [option, str(value)] if key in own_options else ["--set", f"{key}={value}"]
    return arguments


def record_gradients(
    optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]
) -> list[Tensor]:
    """A list to which each of the optimizer's steps will add the gradient of the parameters, flat;
    the trainer frees it."""
    parameters, found = list(parameters), []

    def record(*_: object) -> None:
        found.append(torch.cat([p.grad.flatten() for p in parameters]))

    optimizer.register_step_pre_hook(record)
    return found


def set_diversity(diversity: Diversity, psi: float, explained: float) -> None:
    """psi, and the share of generated poses' variance that D's estimates explain."""
    diversity.psi.fill_(psi)
    diversity.moments.copy_(torch.tensor([[0.0], [1.0], [1 - explained]]).expand(3, 2))


def write_photographs(folder: Path, count: int = 12, resolution: int = 32) -> Path:
    """A folder of colored discs on white."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:resolution, :resolution] / resolution - 0.5
    for i in range(count):
        center, color = random.normal(0, 0.1, 2), random.integers(0, 200, 3)
        disc = (x - center[0]) ** 2 + (y - center[1]) ** 2 < 0.08
        pixels = np.where(disc[..., None], color, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


# Networks that take milliseconds.

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
    "run.precision": "fp32",  # the same results on every processor
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
