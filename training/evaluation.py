"""What metrics get to see of a network and of its photographs (`metrics.context`)."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from metrics.context import Photographs, Views
from metrics.statistics import content_hash

from .config import Config, DataConfig
from .dataset import DatasetArchive, ImageDataset, read_labels
from .discriminator import Discriminator, resize
from .generator import Generator
from .toy import GROUND_TRUTH, load_ground_truth

OPAQUE = 0.5  # opacity of the object's pixels


class EvaluationData(NamedTuple):
    """The photographs behind a `metrics.Context`.

    photographs, shown, true_directions: as there. labels: [N, 25], None without dataset.json.
    """

    photographs: Photographs
    shown: Photographs
    true_directions: Tensor | None
    labels: Tensor | None


def open_evaluation_data(data: DataConfig, seed: int) -> EvaluationData:
    """seed: of the run, which decides about `max_images`. Raises UserError for bad data."""
    content = content_hash(DatasetArchive(data.path).path)

    def photographs(mirror: bool, max_images: int | None) -> Photographs:
        images = ImageDataset(data.path, data.resolution, data.crop, mirror, max_images, seed)
        preparation = (data.resolution, data.crop, mirror, max_images, seed if max_images else None)
        return Photographs(images, f"{content} {preparation}")

    plain, labels = photographs(False, None), _labels(data.path)
    true = None
    if labels is not None:
        true = viewing_directions(labels[:, :16].unflatten(1, (4, 4)))
    elif DatasetArchive(data.path).exists(GROUND_TRUTH):
        true = viewing_directions(torch.from_numpy(load_ground_truth(data.path).cam2world))
    return EvaluationData(plain, photographs(data.mirror, data.max_images), true, labels)


def viewing_directions(cam2world: Tensor) -> Tensor:
    """Unit vectors [N, 3] from the pivot to cameras [N, 4, 4] that look at it."""
    return -cam2world[:, :3, 2]


def _labels(path: str) -> Tensor | None:
    archive = DatasetArchive(path)
    labels, _ = read_labels(archive)  # faults: ImageDataset has complained
    if labels is None:
        return None
    return torch.tensor([labels[name] for name in archive.image_names()])


class Drawn(NamedTuple):
    """Samples before they are rendered: ws [B, num_ws, w_dim], cam2world [B, 4, 4], intrinsics
    [B, 3, 3]."""

    ws: Tensor
    cam2world: Tensor
    intrinsics: Tensor


class NetworkSubject:
    """A network as `metrics.context.Subject`. Each sample's number is its random seed.

    labels: [N, 25], of photographs. Samples get the cameras of random ones where the generator wants
    to be given its poses, and their intrinsics where training took those from the labels.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator | None,
        labels: Tensor | None,
    ):
        self.generator, self.discriminator, self.labels = generator, discriminator, labels
        self.config = generator.config
        self.posed_by_labels = self.config.generator.pose == "given"

    def sample(self, indices: range) -> Tensor:
        return self.views(indices, (0.0,)).image[:, 0]

    def directions(self, indices: range) -> Tensor:
        if self.posed_by_labels:
            raise UserError("this generator is given its poses: it has no distribution of them")
        return viewing_directions(self._draw(indices).cam2world)

    @torch.no_grad()
    def see(self, images: Tensor) -> Tensor:
        return viewing_directions(self.see_cameras(images))

    @torch.no_grad()
    def see_cameras(self, images: Tensor) -> Tensor:
        """cam2world [B, 4, 4] that the discriminator sees in uint8 images [B, 3, R, R]."""
        if self.discriminator is None:
            raise UserError("this network file has no discriminator that sees poses")
        images = images.to(self.generator.intrinsics.device) / 127.5 - 1
        raw = resize(images, self.generator.raw_resolution)
        return self.generator.cam2world(self.discriminator(images, raw).pose)

    @torch.no_grad()
    def views(self, indices: range, yaws: Sequence[float]) -> Views:
        drawn = self._draw(indices)
        pivot = self.config.camera.pivot
        cam2world = torch.stack([orbit(drawn.cam2world, yaw, pivot) for yaw in yaws], dim=1)
        planes = self.generator.planes(drawn.ws)
        view = self.generator.render(planes, drawn.ws[:, -1], cam2world, drawn.intrinsics)
        mask = object_mask(view.opacity, self.config.rendering.white_background)
        return Views(view.image, view.depth, mask, cam2world, drawn.intrinsics)

    @torch.no_grad()
    def _draw(self, indices: range) -> Drawn:
        generator = self.generator
        z, labels = self._latents(indices), self._labels(indices)
        latent = generator.latent(z, labels if self.posed_by_labels else None)
        if self.posed_by_labels:
            cam2world = labels[:, :16].unflatten(1, (4, 4))
        else:
            cam2world = generator.cam2world(latent.pose)
        if self.posed_by_labels or (labels is not None and self._intrinsics_of_labels):
            intrinsics = labels[:, 16:].unflatten(1, (3, 3))
        else:
            intrinsics = generator.intrinsics.expand(len(z), 3, 3)
        return Drawn(latent.ws, cam2world, intrinsics)

