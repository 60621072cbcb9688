"""From photographs to objects of a trained generator, with the pose each was taken from.

    projected = project(generator, discriminator, images)
    turned = projected.objects.render(generator.pose_from_degrees(torch.tensor([[30.0, 0.0]])))

The search of StyleGAN2 (Karras et al. 2020, section 5 and appendix D), in W+ as in Image2StyleGAN
(Abdal et al. 2019), for a pose as well: it begins at the discriminator's estimate, for nobody else
knows it. Latents are searched for in coordinates in which w is white, so that leaving the mean
costs the same in all directions. Where a network's objects are symmetric, the mirror image of a
photograph is taken for another photograph of the same object: a second view, as in Unsup3D (Wu et
al. 2020). A generator may be tuned to the photographs afterwards (Roich et al. 2022, "Pivotal
Tuning", without its regularization).
"""

import copy
import functools
import math
import time
from dataclasses import dataclass, replace
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
SAMPLES = 16  # of the network, which tell whether its objects are symmetric
SYMMETRIC = 3.0  # dB by which objects are more like their own mirror images than like others'
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
        mirror_weight: of a photograph's mirror image, against itself; it counts only where the
            network's own objects are symmetric.
        seed: of the latents from which the spread of w is measured.
    """

    steps: int = 150
    tune_steps: int = 0
    rate: float = 0.1
    pose_rate: float = 0.02
    tune_rate: float = 5e-3
    prior_weight: float = 0.02
    perceptual_weight: float = 1.0
    mirror_weight: float = 0.3
    seed: int = 0


class Projection(NamedTuple):
    """N photographs as objects; or N times V photographs, for which [N] becomes [N, V].

    Attributes:
        objects: N of them, each with its first photograph's pose; of a tuned copy of the generator,
            if it was tuned.
        images: [N, 3, R, R] in [-1, 1], how they look from where the photographs were taken.
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
            [N, V, 3, R, R]: V photographs of each object, which need a discriminator.
        options: None: the defaults.
        progress: show a bar on a terminal.

    Raises:
        UserError: for images of another size, or V photographs without a discriminator.
    """
    options = options or ProjectionOptions()
    begun = time.perf_counter()
    images = _checked(images, generator)
    given = images if images.ndim == 5 else images[:, None]
    if given.shape[1] > 1 and discriminator is None:
        raise UserError("several photographs of one object need a discriminator, for their poses")
    views = _with_mirror_images(generator, discriminator, given, options)
    working = _working_copy(generator)
    target = _Target(views, given.shape[1], options)
    with torch.enable_grad():
        latents = _WhiteLatents(working, options.seed)
        search = _Search(working, latents, target, options, progress)
        best, steps = search.best_of(_start_poses(generator, discriminator, views))
        found = latents.ws(best.white), best.pose
        if options.tune_steps:
            photographs = target if views is given else _Target(given, given.shape[1], options)
            poses = best.pose[:, : given.shape[1]]
            _tune(working, photographs, (found[0], poses), options, progress)
            working.config = generator.config
    ws, poses = found
    with torch.no_grad():
        own = working if options.tune_steps else generator
        objects = Objects.from_ws(own, ws, poses[:, 0])
        seen = objects.render(poses[:, : given.shape[1]]).image.view_as(images)
    similar = psnr(seen.flatten(0, -4), images.flatten(0, -4)).view(images.shape[:-3])
    seconds = (time.perf_counter() - begun) / len(images)
    return Projection(objects, seen, similar, steps, seconds)


def _checked(images: Tensor, generator: Generator) -> Tensor:
    """The images in [-1, 1], where the generator is. Raises UserError for another size."""
    size = generator.config.data.resolution
    if images.ndim not in (4, 5) or images.shape[-3:] != (3, size, size) or not images.numel():
        raise UserError(
            f"images of shape {list(images.shape)}: this network takes [N, 3, {size}, {size}]; "
            "resize them first"
        )
    images = images.to(generator.intrinsics.device)
    return images if images.is_floating_point() else to_float(images)


def _with_mirror_images(
    generator: Generator,
    discriminator: Discriminator | None,
    given: Tensor,
    options: ProjectionOptions,
) -> Tensor:
    """Photographs [N, V, 3, R, R], and behind them their mirror images, where these help."""
    if discriminator is None or not options.mirror_weight:
        return given
    if generator.background is not None:  # it is not mirrored with its object
        return given
    symmetry = _symmetry(generator, discriminator)
    return torch.cat([given, given.flip(-1)], dim=1) if symmetry > SYMMETRIC else given


@torch.no_grad()
def _symmetry(generator: Generator, discriminator: Discriminator) -> float:
    """By how many dB samples are more like their own mirror images than like others', median."""
    objects = Objects.from_seeds(generator, range(SAMPLES))
    flipped = objects.own_view().image.flip(-1)
    pose = discriminator.estimate_pose(flipped, generator.raw_resolution)
    seen = replace(objects, pose=pose).own_view().image
    others = replace(objects, pose=pose.roll(1, 0)).own_view().image
    return (psnr(seen, flipped) - psnr(others, flipped.roll(1, 0))).median().item()


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

    def __init__(self, images: Tensor, given: int, options: ProjectionOptions):
        """images: [N, V, 3, R, R], the first `given` of V photographs, the others mirror images."""
        self._images, self._weight = images, options.perceptual_weight
        self._shares = images.new_full((images.shape[1],), options.mirror_weight)
        self._shares[:given] = 1
        self._shares /= given
        features = lite0_features() if self._weight else None
        self._features = None if features is None else copy.deepcopy(features).to(images.device)
        if self._features is not None:
            with torch.no_grad():
                self._wanted = self._features_of(images)

    def _features_of(self, images: Tensor) -> Tensor:
        """[N, V, C, H, W] of images [N, V, 3, R, R]."""
        assert self._features is not None
        features = self._features(feature_images(images.flatten(0, 1)))
        return features.unflatten(0, images.shape[:2])

    def loss(self, seen: Tensor) -> Tensor:
        """[K N] of images [K N, V, 3, R, R]: K renderings of all photographs, side by side."""
        repeats = len(seen) // len(self._images)
        loss = self._mean(seen - self._images.repeat_interleave(repeats, dim=0))
        if self._features is None:
            return loss
        wanted = self._wanted.repeat_interleave(repeats, dim=0)
        return loss + self._weight * self._mean(self._features_of(seen) - wanted)

    def _mean(self, difference: Tensor) -> Tensor:
        """[B] of [B, V, C, H, W]."""
        return difference.square().flatten(2).mean(dim=2) @ self._shares


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
        self.mean, self.num_ws = generator.mapping.w_avg, generator.num_ws
        _, spread, axes = torch.linalg.svd(w - w.mean(dim=0), full_matrices=False)
        self._axes = axes * spread[:, None] / math.sqrt(len(w))

    def zeros(self, count: int) -> Tensor:
        """The mean, `count` times."""
        return self.mean.new_zeros(count, 1 + self.num_ws, len(self.mean))

    def ws(self, white: Tensor) -> Tensor:
        """[B, num_ws, w_dim]."""
        return self.mean + (white[:, :1] + white[:, 1:]) @ self._axes


class _Candidates(NamedTuple):
    """white: [B, 1 + num_ws, w_dim], see `_WhiteLatents`. pose: [B, V, 2], radians."""

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
        """Of start poses [N, K, V, 2], the best after a few steps goes on; also steps taken."""
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
        seen = _views(self.generator, ws, candidates.pose)
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


def _views(generator: Generator, ws: Tensor, poses: Tensor) -> Tensor:
    """[B, V, 3, R, R]: objects from all of their poses [B, V, 2]."""
    return Objects.from_ws(generator, ws, poses[:, 0]).render(poses).image


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
    """Poses [N, K, V, 2] from which photographs [N, V, 3, R, R] may have been taken."""
    if discriminator is not None:
        size = generator.raw_resolution
        poses = [discriminator.estimate_pose(view, size) for view in images.unbind(1)]
        return torch.stack(poses, dim=1)[:, None]
    directions = torch.tensor([[yaw, 0.0] for yaw in START_YAWS], device=images.device)
    return generator.pose_from_degrees(directions)[:, None].expand(len(images), -1, -1, -1)


def _tune(
    generator: Generator,
    target: _Target,
    found: tuple[Tensor, Tensor],
    options: ProjectionOptions,
    progress: bool,
) -> None:
    """Fit the generator's own weights to the photographs alone, with ws and poses held."""
    ws, pose = found
    parts: list[nn.Module | None] = [generator.backbone.synthesis, generator.decoder]
    parts += [generator.superresolution, generator.background]
    weights = [weight for part in parts if part is not None for weight in part.parameters()]
    optimizer = torch.optim.Adam(weights, options.tune_rate, BETAS)
    for weight in weights:
        weight.requires_grad_(True)
    with _bar(options.tune_steps, "tuning", progress) as bar:
        for _ in range(options.tune_steps):
            optimizer.zero_grad()
            target.loss(_views(generator, ws, pose)).mean().backward()
            optimizer.step()
            bar.update()
    generator.requires_grad_(False)


def _working_copy(generator: Generator) -> Generator:
    """A frozen copy that takes as many samples along a ray as in training, which is faster."""
    working = copy.deepcopy(generator).eval().requires_grad_(False)
    rendering = generator.config.rendering.model_copy(update={"sampling_multiplier": 1})
    working.config = generator.config.model_copy(update={"rendering": rendering})
    return working
