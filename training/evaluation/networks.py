"""What metrics get to see of a network and of its photographs (`metrics.context`)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from metrics.context import ImageSet, Views
from metrics.statistics import content_hash
from torch_utils.images import resize, to_float
from training.config import DataConfig
from training.data.dataset import DatasetArchive, ImageDataset, read_labels
from training.data.toy_heads import GROUND_TRUTH, load_ground_truth
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

_OPAQUE = 0.5
_CENTER = 0.25  # radius, in image widths, of what counts as the object before an opaque background


class EvaluationData(NamedTuple):
    """The photographs behind a `metrics.context.Context`.

    photographs, shown, true_directions: as there. labels: [N, 25], or None without camera labels.
    """

    photographs: ImageSet
    shown: ImageSet
    true_directions: Tensor | None
    labels: Tensor | None


def open_evaluation_data(data: DataConfig, seed: int) -> EvaluationData:
    """seed: the run's, which decides about `max_images`. Raises UserError for bad data."""
    archive = DatasetArchive(data.path)
    content = content_hash(archive.path)

    def photographs(mirror: bool, max_images: int | None) -> ImageSet:
        images = ImageDataset(data.path, data.resolution, data.crop, mirror, max_images, seed)
        subset = None if max_images is None else (max_images, seed)
        preparation = (data.resolution, data.crop, mirror, subset)
        return ImageSet(images, f"{content} {preparation}")

    plain = photographs(False, None)
    labels = _camera_labels(archive)
    cam2world = None
    if labels is not None:
        cam2world = labels[:, :16].unflatten(1, (4, 4))
    elif archive.exists(GROUND_TRUTH):
        cam2world = torch.from_numpy(load_ground_truth(data.path).cam2world)
    return EvaluationData(
        plain,
        photographs(data.mirror, data.max_images),
        None if cam2world is None else viewing_directions(cam2world),
        labels,
    )


def _camera_labels(archive: DatasetArchive) -> Tensor | None:
    labels, _ = read_labels(archive)  # of its faults, ImageDataset has complained
    return None if labels is None else torch.tensor([labels[x] for x in archive.image_names()])


def viewing_directions(cam2world: Tensor) -> Tensor:
    """Unit vectors [N, 3] from the pivot to cameras [N, 4, 4] that look at it."""
    return -cam2world[:, :3, 2]


class EvaluatedNetwork:
    """A network as `metrics.context.EvaluatedModel`. Each sample's number is its random seed.

    labels: [N, 25], of photographs. Where the generator is to be given its poses, samples take the
    cameras of random photographs; where training took intrinsics from the labels, those.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator | None,
        labels: Tensor | None,
    ):
        self.generator, self.discriminator = generator, discriminator
        self.device = generator.intrinsics.device
        cameras = generator.config.camera
        self.poses_given = bool(generator.pose_source.label_dim)
        if self.poses_given and labels is None:
            raise UserError("this generator is given its poses: the data need camera labels")
        uses_labels = self.poses_given or cameras.intrinsics == "labels"
        self.labels = labels if uses_labels else None

    def sample(self, indices: range) -> Tensor:
        """Images [B, 3, R, R] in [-1, 1]."""
        return self.views(indices, (0.0,)).image[:, 0]

    @torch.no_grad()
    def directions(self, indices: range) -> Tensor:
        """Viewing directions [B, 3] of the same samples."""
        if self.poses_given:
            raise UserError("this generator is given its poses: it has no distribution of them")
        return viewing_directions(self._draw(indices).cam2world)

    @torch.no_grad()
    def views(self, indices: range, yaws: Sequence[float]) -> Views:
        """Each sample from its own camera, turned by each of `yaws` in degrees."""
        config = self.generator.config
        drawn = self._draw(indices)
        cam2world = torch.stack(
            [orbit(drawn.cam2world, yaw, config.camera.pivot) for yaw in yaws], dim=1
        )
        planes = self.generator.planes(drawn.ws)
        view = self.generator.render(planes, drawn.ws[:, -1], cam2world, drawn.intrinsics)
        mask = object_mask(view.opacity, config.rendering.white_background)
        return Views(view.image, view.depth, mask, cam2world, drawn.intrinsics)

    def see(self, images: Tensor) -> Tensor:
        """Viewing directions [B, 3] that the discriminator sees in uint8 images [B, 3, R, R]."""
        return viewing_directions(self.estimate_cameras(images))

    @torch.no_grad()
    def estimate_cameras(self, images: Tensor) -> Tensor:
        """The same as cam2world, [B, 4, 4]."""
        if self.discriminator is None:
            raise UserError("this network file has no discriminator that sees poses")
        images = to_float(images.to(self.device))
        raw = resize(images, self.generator.raw_resolution)
        return self.generator.cam2world(self.discriminator(images, raw).pose)

    def _draw(self, indices: range) -> "_Drawn":
        generator = self.generator
        z_dim = generator.config.generator.z_dim
        randoms = [np.random.default_rng(i) for i in indices]
        z = np.stack([random.standard_normal(z_dim, dtype=np.float32) for random in randoms])
        z = torch.from_numpy(z).to(self.device)
        if self.labels is None:
            latent = generator.latent(z)
            intrinsics = generator.intrinsics.expand(len(z), 3, 3)
            return _Drawn(latent.ws, generator.cam2world(latent.pose), intrinsics)
        label = self.labels[[int(random.integers(len(self.labels))) for random in randoms]]
        label = label.to(self.device)
        latent = generator.latent(z, label if self.poses_given else None)
        own = label[:, :16].unflatten(1, (4, 4))
        cam2world = own if self.poses_given else generator.cam2world(latent.pose)
        return _Drawn(latent.ws, cam2world, label[:, 16:].unflatten(1, (3, 3)))


class _Drawn(NamedTuple):
    """Samples to be rendered: ws [B, num_ws, w_dim], cam2world [B, 4, 4], intrinsics [B, 3, 3]."""

    ws: Tensor
    cam2world: Tensor
    intrinsics: Tensor


def orbit(cam2world: Tensor, yaw: float, pivot: Sequence[float]) -> Tensor:
    """Cameras [B, 4, 4] turned by `yaw` degrees, from +z toward +x, round the vertical through the
    pivot."""
    cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    turn = cam2world.new_tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    center = cam2world.new_tensor(pivot)
    turned = cam2world.clone()
    turned[:, :3, :3] = turn @ cam2world[:, :3, :3]
    turned[:, :3, 3] = (cam2world[:, :3, 3] - center) @ turn.mT + center
    return turned


def object_mask(opacity: Tensor, white_background: bool) -> Tensor:
    """bool, like opacity [..., r, r]: what is opaque; where the background may be as well, only the
    central disc of half the image's width."""
    mask = opacity > _OPAQUE
    if white_background:
        return mask
    size = opacity.shape[-1]
    offset = (torch.arange(size, device=opacity.device) + 0.5) / size - 0.5
    return mask & (offset[:, None].hypot(offset) < _CENTER)
