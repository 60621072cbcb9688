"""What metrics know of a network and of photographs.

Samples are numbered: sample i of a network is always the same, in whatever process it is made.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from torch_utils import distributed
from torch_utils.images import to_uint8

from .detectors import INCEPTION, Detector, load_detector
from .runner import Runner

T = TypeVar("T")

READERS = 4  # threads: decoding images leaves the interpreter's lock alone


class Views(NamedTuple):
    """V renderings of each of B objects.

    image: [B, V, 3, R, R] in [-1, 1]. depth: [B, V, 1, r, r], distance from the camera in world
    units. mask: bool [B, V, 1, r, r], the object's pixels. cam2world: [B, V, 4, 4], OpenCV axes.
    intrinsics: [B, 3, 3], normalized by image size.
    """

    image: Tensor
    depth: Tensor
    mask: Tensor
    cam2world: Tensor
    intrinsics: Tensor


class EvaluatedModel(Protocol):
    """The network under test. Directions are viewing directions, see `metrics.poses`.

    Each method raises UserError where the network lacks what is asked, as a discriminator that
    estimates poses.
    """

    def sample(self, indices: range) -> Tensor:
        """Images [B, 3, R, R] in [-1, 1] of the samples with these numbers."""

    def directions(self, indices: range) -> Tensor:
        """The viewing directions [B, 3] of the same samples."""

    def views(self, indices: range, yaws: Sequence[float]) -> Views:
        """The same samples from their own camera, turned round the vertical.

        Args:
            indices: numbers of B samples.
            yaws: V angles in degrees.
        """

    def estimate_directions(self, images: Tensor) -> Tensor:
        """The discriminator's estimates [B, 3] of the viewing directions of images.

        Args:
            images: uint8 [B, 3, R, R].
        """


class Images(Protocol):
    """Numbered images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor:
        """uint8 [3, R, R]."""


class ImageSet(NamedTuple):
    """Images, and a fingerprint of their content and preparation."""

    images: Images
    fingerprint: str

    def batch(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """The images with these numbers, uint8 [B, 3, R, R]."""
        return torch.stack(list(_readers().map(lambda i: self.images[int(i)], indices)))

    def choose(self, count: int) -> np.ndarray:
        """Numbers of up to `count` photographs in an order drawn once and for all."""
        return np.random.default_rng(0).permutation(len(self.images))[:count]


@functools.cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, thread_name_prefix="reader")


@dataclass(eq=False)
class Context:
    """One network and the photographs to compare it with.

    Attributes:
        model: the network.
        all_images: all photographs, as they are.
        train_images: as training uses them, with mirroring and a limit on their number.
        true_directions: viewing directions [N, 3] of `all_images`, or None where nobody knows.
        runner: shares the work among processes.
        detector: see `load_detector`.
        count: of samples; None leaves it to each metric.
        true_depths: [N, r, r] of `all_images`, distances from the camera in world units, NaN where
            nothing is; None where nobody knows them.
    """

    model: EvaluatedModel
    all_images: ImageSet
    train_images: ImageSet
    true_directions: Tensor | None
    runner: Runner
    detector: str = INCEPTION
    count: int | None = None
    true_depths: Tensor | None = None
    _computed: dict[tuple, Any] = field(default_factory=dict)

    def cached(self, key: tuple, compute: Callable[[], T]) -> T:
        """What compute() returned the first time: metrics share what takes long."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def load_detector(self, which: str) -> Detector:
        """The detector of this name, see `metrics.detectors.load_detector`; in all processes.

        Raises:
            UserError: where one process cannot load it.
        """
        return self.cached(("detector", which), lambda: self._load_detector(which))

    def _load_detector(self, which: str) -> Detector:
        for turn in (True, False):  # the first process first: it may have to download
            with self.runner.raise_together():
                if turn == (distributed.rank() == 0):
                    detector = load_detector(which, self.runner.device)
        return detector

    def sample_features(self, detector: Detector, count: int) -> Tensor:
        """The detector's features [count, F] of the first `count` samples."""

        def features(indices: range) -> Tensor:
            return detector.features(to_uint8(self.model.sample(indices)))

        return self.cached(
            ("samples", detector.name, count),
            lambda: self.runner.map(features, count, "features of samples"),
        )

    def known_directions(self) -> Tensor:
        """True viewing directions [N, 3] of `all_images`.

        Raises:
            UserError: where nobody knows them.
        """
        if self.true_directions is None:
            raise UserError(
                "the poses of this data set are not known: camera labels (dataset.json) or the "
                "ground truth of a toy set are needed"
            )
        return self.true_directions
