"""From photographs to objects of a trained generator, with the pose each was taken from.

    projected = project(generator, discriminator, images)
    turned = projected.objects.render(generator.pose_from_degrees(torch.tensor([[30.0, 0.0]])))

The search of StyleGAN2 (Karras et al. 2020, section 5 and appendix D), in W+ as in Image2StyleGAN
(Abdal et al. 2019), for a pose as well: it begins at the discriminator's estimate, for nobody else
knows it. Latents are searched for in coordinates in which w is white, so that leaving the mean
costs the same in all directions. A generator may be tuned to the photographs afterwards (Roich et
al. 2022, "Pivotal Tuning", without its regularization).
"""

import copy
import functools
import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dnnlib import UserError
from torch_utils.images import resize, to_float
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.networks.perceptual import LITE0, load_features
from training.outputs.objects import Objects, latent_of

SIZES = (64, 128)  # smallest and largest side, pixels, of images compared by their features
MEASURED_LATENTS = 4096  # from which the spread of w is known
BETAS = (0.9, 0.99)  # of Adam
WARM_UP = 0.1  # share of the steps in which the step size grows
START_SHARE = 0.25  # of the steps, for every start pose but for the best one
START_YAWS = (-40.0, -20.0, 0.0, 20.0, 40.0)  # degrees, where no discriminator knows better
PATIENCE = 40  # steps without progress before the search ends
PROGRESS = 0.01  # relative decrease of the loss that counts as such


@dataclass(frozen=True)
class ProjectionOptions:
    """How to search.

    Attributes:
        steps: of the search, at most; it ends early where nothing gets better.
        tune_steps: of tuning the generator afterwards; 0 leaves it as it is.
        rate: step size of the latents, in standard deviations of w.
        pose_rate: step size of the poses, radians.
        tune_rate: step size of the generator's weights.
        prior_weight: of the mean square of latents in standard deviations, against the mean square
            error of pixels.
        perceptual_weight: of the mean square error of EfficientNet-Lite0's features, likewise;
            where that is not installed, pixels alone count.
        seed: of the latents from which the spread of w is measured.
    """

    steps: int = 150
    tune_steps: int = 0
    rate: float = 0.1
    pose_rate: float = 0.02
    tune_rate: float = 1e-3
    prior_weight: float = 0.02
    perceptual_weight: float = 1.0
    seed: int = 0


class Projection(NamedTuple):
    """N photographs as objects.

    Attributes:
        objects: N of them, each with its pose; of a tuned copy of the generator, if it was tuned.
        images: [N, 3, R, R] in [-1, 1], how they look from there.
        psnr: [N], of these against the photographs, dB.
        steps: that the search took.
        seconds: that all of it took, divided by N.
    """

    objects: Objects
    images: Tensor
    psnr: Tensor
    steps: int
    seconds: float


def project(
    generator: Generator,
    discriminator: Discriminator | None,
    images: Tensor,
    options: ProjectionOptions | None = None,
    progress: bool = False,
) -> Projection:
    """Find the objects and poses whose pictures are most like photographs.

    All photographs are projected at the same time. They are independent of each other, but for the
    discriminator's estimate, early stopping, and tuning.

    Args:
        generator: in evaluation mode; it stays as it is.
        discriminator: estimates the start poses; None: a row of poses is tried, the best kept.
        images: [N, 3, R, R], uint8, or float in [-1, 1]; cropped as the generator's photographs.
        options: None: the defaults.
        progress: show a bar on a terminal.

    Raises:
        UserError: for images of another size.
    """
    options = options or ProjectionOptions()
    size = generator.config.data.resolution
    if images.ndim != 4 or images.shape[1:] != (3, size, size) or not len(images):
        raise UserError(
            f"images of shape {list(images.shape)}: this network takes [N, 3, {size}, {size}]; "
            "resize them first"
        )
    begun = time.perf_counter()
    images = images.to(generator.intrinsics.device)
    images = images if images.is_floating_point() else to_float(images)
    working = _working_copy(generator)
    target = _Target(images, options.perceptual_weight)
    with torch.enable_grad():
        latents = _WhiteLatents(working, options.seed)
        search = _Search(working, latents, target, options, progress)
        best, steps = search.best_of(_start_poses(generator, discriminator, images))
        found = latents.ws(best.white), best.pose
        if options.tune_steps:
            _tune(working, target, found, options, progress)
            working.config = generator.config
    with torch.no_grad():
        objects = Objects.from_ws(working if options.tune_steps else generator, *found)
        seen = objects.own_view().image
    seconds = (time.perf_counter() - begun) / len(images)
    return Projection(objects, seen, psnr(seen, images), steps, seconds)


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [N], dB, of images [N, 3, H, W] in [-1, 1] against others."""
    return -10 * torch.log10(mean_square(images.clamp(-1, 1) - others) / 4)  # the peak is 2


@functools.cache
def lite0_features() -> nn.Module | None:
    """Features of EfficientNet-Lite0, see `training.networks.perceptual`; None: not installed."""
    try:
        return load_features(LITE0)
    except UserError:
        return None


def feature_images(images: Tensor) -> Tensor:
    """Images [N, 3, R, R] in a size in which their features are compared."""
    return resize(images, min(max(images.shape[-1], SIZES[0]), SIZES[1]))


class _Target:
    """Photographs, and how far renderings are from them."""

    def __init__(self, images: Tensor, perceptual_weight: float):
        self._images, self._weight = images, perceptual_weight
        features = lite0_features() if perceptual_weight else None
        self._features = None if features is None else copy.deepcopy(features).to(images.device)
        if self._features is not None:
            with torch.no_grad():
                self._wanted = self._features(feature_images(images))

    def loss(self, seen: Tensor) -> Tensor:
        """[K N] of images [K N, 3, R, R]: K renderings of each photograph, side by side."""
        repeats = len(seen) // len(self._images)
        loss = mean_square(seen - self._images.repeat_interleave(repeats, dim=0))
        if self._features is None:
            return loss
        found = self._features(feature_images(seen))
        wanted = self._wanted.repeat_interleave(repeats, dim=0)
        return loss + self._weight * mean_square(found - wanted)


def mean_square(difference: Tensor) -> Tensor:
    """[N] of [N, C, H, W]."""
    return difference.square().flatten(1).mean(dim=1)


class _WhiteLatents:
    """ws around their mean, in standard deviations of w: [B, 1 + num_ws, w_dim].

    The first row moves all ws together, the others each one.
    """

    def __init__(self, generator: Generator, seed: int):
        shape = MEASURED_LATENTS, generator.mapping.z_dim
        z = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            w = latent_of(generator, z).w
        self.mean, self.num_ws = generator.mapping.w_avg, generator.backbone.synthesis.num_ws
        _, spread, axes = torch.linalg.svd(w - w.mean(dim=0), full_matrices=False)
        self._axes = axes * spread[:, None] / math.sqrt(len(w))

    def zeros(self, count: int) -> Tensor:
        """The mean, `count` times."""
        return self.mean.new_zeros(count, 1 + self.num_ws, len(self.mean))

    def ws(self, white: Tensor) -> Tensor:
        """[B, num_ws, w_dim]."""
        return self.mean + (white[:, :1] + white[:, 1:]) @ self._axes


class _Candidates(NamedTuple):
    """white: [B, 1 + num_ws, w_dim], see `_WhiteLatents`. pose: [B, 2], radians."""

    white: Tensor
    pose: Tensor


class _Best:
    """The best candidates of each row so far, and how many steps ago one of them was found."""

    def __init__(self, start: _Candidates):
        self.candidates = _Candidates(*(part.clone() for part in start))
        self.losses = start.pose.new_full((len(start.pose),), math.inf)
        self.age = 0
        self._at_progress = self.losses

    @torch.no_grad()
    def update(self, losses: Tensor, candidates: _Candidates) -> None:
        better = losses < self.losses
        self.losses = torch.where(better, losses, self.losses)
        for best, new in zip(self.candidates, candidates, strict=True):
            best[better] = new[better]
        self.age += 1
        if (self.losses < (1 - PROGRESS) * self._at_progress).any():
            self.age, self._at_progress = 0, self.losses


@dataclass(frozen=True)
class _Search:
    """What a search needs beside its start."""

    generator: Generator
    latents: _WhiteLatents
    target: _Target
    options: ProjectionOptions
    progress: bool

    def best_of(self, starts: Tensor) -> tuple[_Candidates, int]:
        """Of start poses [N, K, 2], the best after a few steps goes on; also the steps it took."""
        count, choices = starts.shape[:2]
        candidates = _Candidates(self.latents.zeros(count * choices), starts.flatten(0, 1))
        if choices > 1:
            few = math.ceil(START_SHARE * self.options.steps)
            tried, _ = self.run(candidates, few, "start poses")
            rows = torch.arange(count, device=starts.device)
            chosen = rows * choices + tried.losses.unflatten(0, (count, choices)).argmin(dim=1)
            candidates = _Candidates(*(part[chosen] for part in tried.candidates))
        best, steps = self.run(candidates, self.options.steps, "projection")
        return best.candidates, steps

    def run(self, start: _Candidates, steps: int, label: str) -> tuple[_Best, int]:
        """From K candidates for each photograph; also how many steps it took."""
        moving = _Candidates(*(part.clone().requires_grad_() for part in start))
        optimizer, schedule = self._optimizer(moving, steps)
        best = _Best(start)
        with _bar(steps, label, self.progress) as bar:
            for step in range(steps + 1):
                losses = self._losses(moving)
                best.update(losses, moving)
                if step == steps or best.age >= PATIENCE:
                    break
                optimizer.zero_grad()
                losses.sum().backward()
                optimizer.step()
                schedule.step()
                bar.update()
        return best, step

    def _losses(self, candidates: _Candidates) -> Tensor:
        ws = self.latents.ws(candidates.white)
        seen = Objects.from_ws(self.generator, ws, candidates.pose).own_view().image
        prior = self.options.prior_weight * candidates.white.square().mean(dim=(1, 2))
        return self.target.loss(seen) + prior

    def _optimizer(
        self, moving: _Candidates, steps: int
    ) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LambdaLR]:
        groups = [
            {"params": [moving.white], "lr": self.options.rate},
            {"params": [moving.pose], "lr": self.options.pose_rate},
        ]
        optimizer = torch.optim.Adam(groups, betas=BETAS)
        rate = functools.partial(_relative_rate, steps=steps)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def _relative_rate(step: int, steps: int) -> float:
    """Grows linearly, falls as a cosine."""
    return min(1, (step + 1) / (WARM_UP * steps + 1)) * (1 + math.cos(math.pi * step / steps)) / 2


def _bar(steps: int, label: str, progress: bool) -> tqdm:
    return tqdm(
        total=steps, desc=label, unit="step", leave=False, disable=None if progress else True
    )


def _start_poses(
    generator: Generator, discriminator: Discriminator | None, images: Tensor
) -> Tensor:
    """Poses [N, K, 2] from which photographs may have been taken."""
    if discriminator is not None:
        return discriminator.estimate_pose(images, generator.raw_resolution)[:, None]
    directions = torch.tensor([[yaw, 0.0] for yaw in START_YAWS], device=images.device)
    return generator.pose_from_degrees(directions).expand(len(images), -1, -1)


def _tune(
    generator: Generator,
    target: _Target,
    found: tuple[Tensor, Tensor],
    options: ProjectionOptions,
    progress: bool,
) -> None:
    """Fit the generator's own weights to the photographs, with ws and poses held."""
    ws, pose = found
    parts = [generator.backbone.synthesis, generator.decoder, generator.superresolution]
    weights = [weight for part in parts if part is not None for weight in part.parameters()]
    optimizer = torch.optim.Adam(weights, options.tune_rate, BETAS)
    for weight in weights:
        weight.requires_grad_(True)
    with _bar(options.tune_steps, "tuning", progress) as bar:
        for _ in range(options.tune_steps):
            seen = Objects.from_ws(generator, ws, pose).own_view().image
            optimizer.zero_grad()
            target.loss(seen).mean().backward()
            optimizer.step()
            bar.update()
    generator.requires_grad_(False)


def _working_copy(generator: Generator) -> Generator:
    """A frozen copy that takes as many samples along a ray as in training, which is faster."""
    working = copy.deepcopy(generator).eval().requires_grad_(False)
    rendering = generator.config.rendering.model_copy(update={"sampling_multiplier": 1})
    working.config = generator.config.model_copy(update={"rendering": rendering})
    return working
