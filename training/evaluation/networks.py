"""Networks and data sets as metrics expect them (`metrics.context`)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from metrics.context import Context, ImageSet, Views
from metrics.detectors import INCEPTION
from metrics.runner import Runner
from metrics.statistics import content_hash
from training.cameras import orbit, viewing_directions
from training.config import DataConfig
from training.data.archive import GROUND_TRUTH, DatasetArchive
from training.data.dataset import ImageDataset
from training.data.ground_truth import load_ground_truth
from training.data.labels import read_labels
from training.data.toy_heads import BACKGROUND_DEPTH
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator, Latent
from training.outputs.objects import Objects, latents_of_seeds, own_pose

_OPAQUE = 0.5
_CENTER = 0.25  # radius, in image widths, of what counts as the object before an opaque background


class EvaluationData(NamedTuple):
    """The photographs behind a `metrics.context.Context`.

    all_images, train_images, true_directions: as there. labels: [N, 25], cam2world and intrinsics
    of all images, or None without camera labels. true_depths: as in the context.
    """

    all_images: ImageSet
    train_images: ImageSet
    true_directions: Tensor | None
    labels: Tensor | None
    true_depths: Tensor | None

    def context(
        self,
        generator: Generator,
        discriminator: Discriminator | None,
        runner: Runner,
        detector: str = INCEPTION,
        count: int | None = None,
    ) -> Context:
        """What metrics need of networks beside these photographs; see `Context`."""
        network = EvaluatedNetwork(generator, discriminator, self.labels)
        photographs = self.all_images, self.train_images, self.true_directions
        return Context(network, *photographs, runner, detector, count, self.true_depths)


def open_evaluation_data(data: DataConfig, seed: int) -> EvaluationData:
    """The photographs of a data set, as they are and as training uses them.

    Args:
        data: where they are and how they are prepared.
        seed: the run's, which decides about `max_images`.

    Raises:
        UserError: for bad data.
    """
    path = data.path
    if path is None:
        raise UserError("no data set is named: give --data")
    archive = DatasetArchive(path)
    content = content_hash(archive.path)

    def image_set(mirror: bool, max_images: int | None) -> ImageSet:
        # Cameras are read apart, below; labels that are none may stay.
        images = ImageDataset(
            path, data.resolution, data.crop, mirror, max_images, seed, labels="ignore"
        )
        subset = None if max_images is None else (max_images, seed)
        preparation = (data.resolution, data.crop, mirror, subset)
        return ImageSet(images, f"{content} {preparation}")

    all_images = image_set(False, None)
    labels = _camera_labels(archive)
    cam2world, depths = None, None
    if archive.exists(GROUND_TRUTH):
        truth = load_ground_truth(path)
        cam2world, depths = torch.from_numpy(truth.cam2world), _surface(truth.depth)
    if labels is not None:
        cam2world = labels[:, :16].unflatten(1, (4, 4))
    return EvaluationData(
        all_images,
        image_set(data.mirror, data.max_images),
        None if cam2world is None else viewing_directions(cam2world),
        labels,
        depths,
    )


def _surface(depth: np.ndarray) -> Tensor:
    """Depths of the ground truth, NaN where they are the background's."""
    return torch.from_numpy(np.where(depth < BACKGROUND_DEPTH, depth, np.float16(np.nan)))


def _camera_labels(archive: DatasetArchive) -> Tensor | None:
    labels = read_labels(archive)  # of its faults, ImageDataset has complained
    if labels.cameras is None or labels.faulty:
        return None
    return torch.tensor([labels.cameras[name] for name in archive.image_names()])


class EvaluatedNetwork:
    """A network as `metrics.context.EvaluatedModel`. Sample i is the object of seed i.

    Args:
        generator: on the device where it is evaluated, in evaluation mode.
        discriminator: on the same device, or None.
        labels: [N, 25], of photographs, or None. Where the generator is given its poses, samples
            take the cameras of random photographs; where training took intrinsics from the labels,
            those.

    Raises:
        UserError: where the generator is given its poses, and there are no labels.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator | None = None,
        labels: Tensor | None = None,
    ):
        self.generator, self.discriminator = generator, discriminator
        self.device = generator.intrinsics.device
        self.poses_given = bool(generator.pose_source.label_dim)
        if self.poses_given and labels is None:
            raise UserError("this generator is given its poses: the data need camera labels")
        uses_labels = self.poses_given or generator.config.camera.intrinsics == "labels"
        self.labels = labels if uses_labels else None

    def sample(self, indices: range) -> Tensor:
        """Images [B, 3, R, R] in [-1, 1] of the samples with these numbers."""
        return self.views(indices, (0.0,)).image[:, 0]

    @torch.no_grad()
    def directions(self, indices: range) -> Tensor:
        """Viewing directions [B, 3] of the same samples.

        Raises:
            UserError: where the generator is given its poses.
        """
        if self.poses_given:
            raise UserError("this generator is given its poses: it has no distribution of them")
        return viewing_directions(self._draw(indices).cam2world)

    @torch.no_grad()
    def views(self, indices: range, yaws: Sequence[float]) -> Views:
        """Each sample from its own camera, turned round the vertical through the pivot.

        Args:
            indices: numbers of B samples.
            yaws: V angles in degrees.
        """
        drawn = self._draw(indices)
        pivot = self.generator.config.camera.pivot
        turned = torch.stack([orbit(drawn.cam2world, yaw, pivot) for yaw in yaws], dim=1)
        pose = own_pose(self.generator, drawn.latent)
        objects = Objects.from_ws(self.generator, drawn.latent.ws, pose)
        view = objects.render(turned, drawn.intrinsics)
        mask = object_mask(view.opacity, self.generator.config.object_stands_alone)
        return Views(view.image, view.depth, mask, turned, drawn.intrinsics)

    def estimate_directions(self, images: Tensor) -> Tensor:
        """The discriminator's estimates [B, 3] of the viewing directions of images.

        Args:
            images: uint8 [B, 3, R, R].

        Raises:
            UserError: without a discriminator.
        """
        if self.discriminator is None:
            raise UserError("this network file has no discriminator, which estimates poses")
        pose = self.discriminator.estimate_pose(images, self.generator.raw_resolution)
        return viewing_directions(self.generator.cam2world(pose))

    def _draw(self, indices: range) -> "_Drawn":
        generator = self.generator
        z = latents_of_seeds(indices, generator.config.generator.z_dim).to(self.device)
        label, intrinsics = None, generator.intrinsics.expand(len(z), 3, 3)
        if self.labels is not None:
            chosen = [int(np.random.default_rng(i).integers(len(self.labels))) for i in indices]
            label = self.labels[chosen].to(self.device)
            intrinsics = label[:, 16:].unflatten(1, (3, 3))
        latent = generator.latent(z, label if self.poses_given else None)
        if latent.pose is not None:
            cam2world = generator.cam2world(latent.pose)
        elif label is not None:
            cam2world = label[:, :16].unflatten(1, (4, 4))
        return _Drawn(latent, cam2world, intrinsics)


class _Drawn(NamedTuple):
    """Samples to be rendered, their own cameras [B, 4, 4], and intrinsics [B, 3, 3]."""

    latent: Latent
    cam2world: Tensor
    intrinsics: Tensor


def object_mask(opacity: Tensor, stands_alone: bool) -> Tensor:
    """The pixels of the object, by where it is opaque.

    Args:
        opacity: [..., r, r] in [0, 1].
        stands_alone: see `Config.object_stands_alone`; else the background may be opaque as well,
            and only the central disc of half the image's width counts.

    Returns:
        bool [..., r, r].
    """
    mask = opacity > _OPAQUE
    if stands_alone:
        return mask
    size = opacity.shape[-1]
    offset = (torch.arange(size, device=opacity.device) + 0.5) / size - 0.5
    return mask & (offset[:, None].hypot(offset) < _CENTER)
