"""The objects of a trained generator: from seeds, latents or ws, to be rendered from any camera.

    objects = Objects.from_seeds(generator, range(4), truncation=0.7)
    view = objects.own_view()                                   # each from its own pose
    turned = objects.render(generator.pose_from_degrees(torch.tensor([[20.0, 0.0]])))

The way from a latent to a view (planes, the last w, cameras, rendering) is here and nowhere else.
"""

import collections
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib import LARGEST_SEED, UserError
from training.networks.generator import Generator, Latent, View
from training.outputs.latent_files import load_latent

POINTS_AT_ONCE = 2**23  # on the rays of one rendering; bounds its memory


def latents_of_seeds(seeds: Sequence[int], z_dim: int) -> Tensor:
    """The latents of seeds: seed N is the same object in samples, videos, metrics, pictures.

    Args:
        seeds: whole numbers from 0 to 2^32 - 1.
        z_dim: dimensions of z.

    Returns:
        z, float32 [len(seeds), z_dim], standard normal, in main memory.

    Raises:
        UserError: for a seed out of range.
    """
    z = np.empty((len(seeds), z_dim), np.float32)
    for row, seed in zip(z, seeds, strict=True):
        if not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"seed {seed}: seeds go from 0 to {LARGEST_SEED}")
        row[:] = np.random.RandomState(seed).randn(z_dim)
    return torch.from_numpy(z)


def own_pose(generator: Generator, latent: Latent) -> Tensor:
    """The pose [B, 2] of each latent; the frontal one for a generator that is given its poses."""
    if latent.pose is not None:
        return latent.pose
    return frontal_pose(generator).expand(len(latent.ws), 2)


def frontal_pose(generator: Generator) -> Tensor:
    """[1, 2]: from where the canonical view is taken."""
    mean_h = generator.config.camera.mean_h
    return generator.intrinsics.new_tensor([[mean_h, math.pi / 2]])


def _frontal_label(generator: Generator) -> Tensor:
    """[1, 25]: the camera that an EG3D generator is conditioned on by default."""
    cam2world = generator.cam2world(frontal_pose(generator))
    return torch.cat([cam2world.flatten(), generator.intrinsics.flatten()])[None]


def latent_of(
    generator: Generator,
    z: Tensor,
    truncation: float = 1,
    cutoff: int | None = None,
    label: Tensor | None = None,
) -> Latent:
    """What the generator maps latents to; the arguments are those of `Objects.from_latents`."""
    z = z.to(generator.intrinsics)
    if generator.pose_source.label_dim and label is None:
        label = _frontal_label(generator).expand(len(z), -1)
    return generator.latent(z, label, truncation=truncation, cutoff=cutoff)


def _stem(latent: Path) -> str:
    return latent.name.removesuffix(".npz")


@dataclass(frozen=True)
class Selection:
    """Which objects a command shows: what its options say.

    seeds: --seeds. trunc: --trunc. trunc_cutoff: --trunc-cutoff, how many ws are truncated; None:
    all. latents: --latent, files of objects in place of seeds. Raises UserError for two latents of
    one name, by which their results are called.
    """

    seeds: Sequence[int]
    trunc: float = 1.0
    trunc_cutoff: int | None = None
    latents: Sequence[Path] = ()

    def __post_init__(self) -> None:
        counts = collections.Counter(map(_stem, self.latents))
        if twice := [name for name, count in counts.items() if count > 1]:
            raise UserError(f"two --latent files are called {twice[0]}; rename one of them")

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self.latents or self.seeds)

    def names(self, digits: int = 4) -> list[str]:
        """What files of each object are called: seed0007, with as many digits, or as its latent."""
        if self.latents:
            return [_stem(path) for path in self.latents]
        return [f"seed{seed:0{digits}d}" for seed in self.seeds]

    def batches(self, size: int) -> Iterator["Selection"]:
        """At most `size` objects at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield replace(self, seeds=self.seeds[part], latents=self.latents[part])

    def objects(self, generator: Generator) -> "Objects":
        """The objects themselves.

        Raises:
            UserError: for a seed out of range, or a latent that cannot be read.
        """
        if self.latents:
            return Objects.from_files(generator, self.latents)
        return Objects.from_seeds(generator, self.seeds, self.trunc, self.trunc_cutoff)


@dataclass(frozen=True)
class Objects:
    """B objects of one generator.

    ws: [B, num_ws, w_dim]. planes: [B, 3, C, H, W]. pose: [B, 2], (h, v) in radians, from which
    each is rendered by default; the frontal one for a generator that is given its poses.
    """

    generator: Generator
    ws: Tensor
    planes: Tensor
    pose: Tensor

    @classmethod
    @torch.no_grad()
    def from_seeds(
        cls,
        generator: Generator,
        seeds: Sequence[int],
        truncation: float = 1,
        cutoff: int | None = None,
    ) -> "Objects":
        """The objects of seeds; each depends on nothing but its seed, up to rounding.

        See `from_latents`.

        Raises:
            UserError: for a seed out of range.
        """
        z = latents_of_seeds(seeds, generator.mapping.z_dim)
        return cls.from_latents(generator, z, truncation, cutoff)

    @classmethod
    @torch.no_grad()
    def from_latents(
        cls,
        generator: Generator,
        z: Tensor,
        truncation: float = 1,
        cutoff: int | None = None,
        label: Tensor | None = None,
    ) -> "Objects":
        """The objects of latents.

        Args:
            generator: the generator.
            z: [B, z_dim].
            truncation: psi; pulls ws toward their mean.
            cutoff: how many of the ws it pulls; None: all.
            label: [B, 25], the camera that a generator is conditioned on which is given its poses
                (EG3D); None: the frontal one.
        """
        latent = latent_of(generator, z, truncation, cutoff, label)
        return cls.from_ws(generator, latent.ws, own_pose(generator, latent))

    @classmethod
    @torch.no_grad()
    def from_files(cls, generator: Generator, paths: Sequence[Path]) -> "Objects":
        """The objects of latent files, as `project.py` writes them; see `latent_files`.

        One without a pose is rendered from the front.

        Raises:
            UserError: for a file that cannot be read, or is of a network of other sizes.
        """
        ws, poses = [], []
        expected = (1, generator.num_ws, len(generator.mapping.w_avg))
        for path in paths:
            stored = load_latent(path)
            if stored.ws.shape != expected:
                raise UserError(
                    f"{path} is a latent of another network: w has the shape "
                    f"{list(stored.ws.shape)}, this network's {list(expected)}"
                )
            ws.append(stored.ws.to(generator.intrinsics))
            pose = frontal_pose(generator) if stored.pose is None else stored.pose
            poses.append(pose.to(generator.intrinsics))
        return cls.from_ws(generator, torch.cat(ws), torch.cat(poses))

    @classmethod
    def from_ws(cls, generator: Generator, ws: Tensor, pose: Tensor) -> "Objects":
        """The objects of ws [B, num_ws, w_dim] and poses [B, 2]; differentiable in both."""
        return cls(generator, ws, generator.planes(ws), pose)

    def __len__(self) -> int:
        """B."""
        return len(self.ws)

    def split(self) -> list["Objects"]:
        """B times one object."""
        parts = zip(self.ws.split(1), self.planes.split(1), self.pose.split(1), strict=True)
        return [Objects(self.generator, *part) for part in parts]

    def own_view(self, intrinsics: Tensor | None = None, resolution: int | None = None) -> View:
        """Each object from its own pose: a `View` without the dimension V. See `render`."""
        return self.render(self.pose[:, None], intrinsics, resolution).select(0)

    def render(
        self, cameras: Tensor, intrinsics: Tensor | None = None, resolution: int | None = None
    ) -> View:
        """Render every object from V cameras; differentiable.

        Args:
            cameras: poses [V, 2] or [B, V, 2] in radians, or cam2world [V, 4, 4] or [B, V, 4, 4].
            intrinsics: [3, 3] or [B, 3, 3]; None: the preset's.
            resolution: pixels a side of the rendering; None: as trained. It is the size of the
                image as well where there is no super-resolution.
        """
        cam2world = self._cam2world(cameras)
        size = resolution or self.generator.raw_resolution
        rendering = self.generator.config.rendering
        points = size**2 * cam2world.shape[1] * rendering.samples * rendering.sampling_multiplier
        part = max(POINTS_AT_ONCE // points, 1)
        views = [
            self.generator.render(planes, ws, some, lens, resolution=resolution)
            for planes, ws, some, lens in zip(
                self.planes.split(part),
                self.ws.split(part),
                cam2world.split(part),
                self._intrinsics(intrinsics).split(part),
                strict=True,
            )
        ]
        return View(*(torch.cat(parts) for parts in zip(*views, strict=True)))

    def _cam2world(self, cameras: Tensor) -> Tensor:
        """[B, V, 4, 4] of what `render` takes."""
        cameras = cameras.to(self.ws)
        if cameras.shape[-1] == 2:
            flat = self.generator.cam2world(cameras.reshape(-1, 2))
            cameras = flat.reshape(*cameras.shape[:-1], 4, 4)
        return cameras.expand(len(self.ws), *cameras.shape[-3:])

    def _intrinsics(self, intrinsics: Tensor | None) -> Tensor:
        own = self.generator.intrinsics if intrinsics is None else intrinsics
        return own.to(self.ws).expand(len(self.ws), 3, 3)
