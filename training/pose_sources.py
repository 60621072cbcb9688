"""Where camera poses come from: learned with the images, camera labels, a Gaussian, or the user.

A `PoseSource` says from which pose each generated object is rendered and which pose the
discriminator is conditioned on. Poses are (h, v) [B, 2] in radians; see `training.cameras`.

A new source is a subclass with the decorator `@source("name")`; `camera.poses=name` selects it.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnnlib import UserError
from training.cameras import pose_from_cam2world
from training.config import POSE_SOURCES, CameraConfig, Config

if TYPE_CHECKING:
    from training.networks.generator import Generator

MORE_LATENTS = 256  # whose poses estimate entropy, in each pass


class Poses(NamedTuple):
    """Poses of one micro-batch.

    pose: [B, 2], from which each object is rendered. condition: [B, 2], which D is conditioned on;
    None: D's own estimate. swapped: the poses are those of the neighbors in the batch. more_z:
    [N, z_dim], further latents, from whose poses entropy is estimated; None without that term.
    """

    pose: Tensor
    condition: Tensor | None = None
    swapped: bool = False
    more_z: Tensor | None = None


class Term(NamedTuple):
    """A term of G's loss: the name it is logged under, its weight, its value (a scalar)."""

    name: str
    weight: float
    value: Tensor


class PoseSource(nn.Module):
    """Base of all sources: each object is rendered from the pose of its own latent."""

    label_dim = 0  # numbers of the camera label that the mapping network takes
    second_view = True  # whether training renders a mirrored view too

    def prepare(self, cam2world: Tensor | None, data: str) -> None:
        """Called once, before training.

        Args:
            cam2world: [N, 4, 4], camera labels of the training images, if any.
            data: path of the data set, for messages.

        Raises:
            UserError: where this source cannot train on such data.
        """

    def of_latent(self, generator: "Generator", z: Tensor, w: Tensor) -> Tensor | None:
        """The pose [B, 2] that belongs to each latent (z [B, z_dim], w [B, w_dim]).

        None where only the user knows.
        """
        raise NotImplementedError

    def sample(self, generator: "Generator", z: Tensor, w: Tensor) -> Poses:
        """Poses of a training batch; may draw random numbers."""
        pose = self.of_latent(generator, z, w)
        if pose is None:
            raise NotImplementedError
        return Poses(pose)

    def condition_of_images(self, indices: Tensor) -> Tensor | None:
        """What D is conditioned on for training images [B]; None: D's own estimate."""
        return None

    def losses(
        self, generator: "Generator", w: Tensor, poses: Poses, estimate: Tensor
    ) -> list[Term]:
        """Terms of G's loss that concern poses.

        Args:
            generator: the generator.
            w: [B, w_dim] of the objects.
            poses: what `sample` returned for them.
            estimate: [B, 2], D's estimate from their unmirrored views.
        """
        return []


_SOURCES: dict[str, Callable[[CameraConfig, int], PoseSource]] = {}


def source(name: str) -> Callable[[type[PoseSource]], type[PoseSource]]:
    """Register a source, built as cls(camera settings, z_dim), under a value of camera.poses."""

    def register(cls: type[PoseSource]) -> type[PoseSource]:
        _SOURCES[name] = cls
        if name not in POSE_SOURCES:
            POSE_SOURCES.append(name)
        return cls

    return register


def build(config: Config) -> PoseSource:
    """The source that a config names."""
    return _SOURCES[config.camera.poses](config.camera, config.generator.z_dim)


@source("learned")
class Learned(PoseSource):
    """The generator's pose head predicts the pose from w (PoF3D, section 3.2)."""

    def __init__(self, settings: CameraConfig, z_dim: int):
        super().__init__()
        self.swap_prob = settings.swap_poses_prob

    def of_latent(self, generator: "Generator", z: Tensor, w: Tensor) -> Tensor:
        """The pose head's output for w."""
        return generator.pose_head(w)

    def sample(self, generator: "Generator", z: Tensor, w: Tensor) -> Poses:
        """The latents' own poses or, with `swap_poses_prob`, those of their neighbors."""
        swapped = bool(self.swap_prob) and bool(torch.rand(()) < self.swap_prob)
        more_z = None
        if generator.config.loss.pose_entropy_weight:
            more_z = torch.randn(MORE_LATENTS, z.shape[1], device=z.device)
        pose = _permuted(generator.pose_head(w), swapped)
        return Poses(pose, swapped=swapped, more_z=more_z)

    def losses(
        self, generator: "Generator", w: Tensor, poses: Poses, estimate: Tensor
    ) -> list[Term]:
        """Consistency with D's estimate (PoF3D, section 3.4), and entropy.

        Both reach the pose head alone, not w: hence the head runs again, on detached w.
        """
        weights = generator.config.loss
        pose = _permuted(generator.pose_head(w.detach()), poses.swapped)
        consistency = F.mse_loss(pose, estimate.detach())
        terms = [Term("pose_consistency", weights.pose_consistency_weight, consistency)]
        if poses.more_z is not None:
            more = generator.pose_head(generator.mapping(poses.more_z).detach())
            terms.append(Term("pose_entropy", -weights.pose_entropy_weight, pose_entropy(more)))
        return terms


class _GaussianOfLatent(PoseSource):
    """A Gaussian whose mean and spread the network file keeps; each latent has a fixed pose."""

    mean: Tensor
    std: Tensor
    directions: Tensor

    def __init__(self, settings: CameraConfig, z_dim: int):
        super().__init__()
        self.register_buffer("mean", torch.tensor((settings.mean_h, math.pi / 2)))
        self.register_buffer("std", torch.tensor(settings.prior_std))
        # Two orthonormal directions: what lies along them in z is standard normal, independent.
        directions = torch.ones(z_dim, 2)
        directions[::2, 1] = -1
        self.register_buffer("directions", directions / math.sqrt(z_dim), persistent=False)

    def of_latent(self, generator: "Generator", z: Tensor, w: Tensor) -> Tensor:
        """A linear map of z, distributed like the Gaussian."""
        return self.mean + self.std * (z @ self.directions)


@source("prior")
class Gaussian(_GaussianOfLatent):
    """Training draws poses from the Gaussian, independent of the latents."""

    def sample(self, generator: "Generator", z: Tensor, w: Tensor) -> Poses:
        """Independent draws from the Gaussian."""
        return Poses(self.mean + self.std * torch.randn(len(z), 2, device=self.mean.device))


@source("dataset")
class FromLabels(_GaussianOfLatent):
    """Training draws poses from the camera labels, and D is conditioned on them (EG3D).

    Known poses rule out flat geometry by themselves, so there is no mirrored view.
    """

    second_view = False

    def __init__(self, settings: CameraConfig, z_dim: int):
        super().__init__(settings, z_dim)
        self.mean_h = settings.mean_h
        self.known = torch.empty(0, 2)  # poses of all training images, [N, 2]

    def prepare(self, cam2world: Tensor | None, data: str) -> None:
        """Keep the labels' poses, and their mean and spread."""
        if cam2world is None:
            raise UserError(
                f"poses from the data set: {data} has no camera labels (dataset.json); "
                "leave --poses dataset out, since PoF3D needs no poses, or add labels"
            )
        self.known = pose_from_cam2world(cam2world, self.mean_h)
        self.mean.copy_(self.known.mean(dim=0))
        self.std.copy_(self.known.std(dim=0))

    def sample(self, generator: "Generator", z: Tensor, w: Tensor) -> Poses:
        """Poses of random training images."""
        indices = torch.randint(len(self.known), (len(z),))
        pose = self.known[indices].to(z.device, non_blocking=True)
        return Poses(pose, condition=pose)

    def condition_of_images(self, indices: Tensor) -> Tensor:
        """The images' labels."""
        return self.known[indices].to(self.mean.device, non_blocking=True)


@source("given")
class Given(PoseSource):
    """The user gives the poses; the mapping takes a camera label: an EG3D generator."""

    label_dim = 25  # cam2world (16) and intrinsics (9), as EG3D's data sets store them

    def __init__(self, settings: CameraConfig, z_dim: int):
        super().__init__()

    def prepare(self, cam2world: Tensor | None, data: str) -> None:
        """Raises UserError: there is nothing to learn poses from."""
        raise UserError("camera.poses=given cannot be trained, only sampled: use 'learned'")

    def of_latent(self, generator: "Generator", z: Tensor, w: Tensor) -> None:
        """No latent has a pose of its own."""
        return None


def pose_entropy(pose: Tensor) -> Tensor:
    """Differential entropy, in nats, of a Gaussian with the covariance of poses [N, 2], N > 2.

    Not in the paper. Objects may turn together with their cameras, in part or in whole, and the
    images stay the same; then cameras that move less satisfy D as well, and geometry makes up for
    them. Cameras that move too much do not: the two views of an object would differ more than the
    data do. So of all pose distributions that D accepts, the widest is the right one.
    """
    return torch.logdet(_covariance(pose)) / 2 + math.log(2 * math.pi * math.e)


def _covariance(pose: Tensor) -> Tensor:
    """What `torch.cov` returns of [N, 2], without waiting for a GPU, as that does."""
    centered = pose.T - (pose.sum(dim=0) / len(pose))[:, None]
    return centered @ centered.T / (len(pose) - 1)


def _permuted(pose: Tensor, swapped: bool) -> Tensor:
    """Poses [B, 2], passed on to the next object of the batch where they are swapped."""
    return pose.roll(1, dims=0) if swapped else pose
