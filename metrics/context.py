"""What metrics know of a network and of photographs, and what they return.

Samples are numbered: sample i of a network is always the same, in whatever process it is made.
"""

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


class Measured(NamedTuple):
    """name: of what was measured in truth, with the count and the detector that were used. numbers:
    value by what is appended to the name to tell it apart; '' is the main one."""

    name: str
    numbers: dict[str, float]


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
    """The network under test. Directions are unit vectors [B, 3] from the pivot to the camera.

    Raises UserError where the network lacks what is asked, as a discriminator that sees poses.
    """

    def sample(self, indices: range) -> Tensor:
        """Images [B, 3, R, R] in [-1, 1] of the samples with these numbers."""

    def directions(self, indices: range) -> Tensor:
        """The viewing directions of the same samples."""

    def views(self, indices: range, yaws: Sequence[float]) -> Views:
        """The same samples from their own camera, turned round the vertical by each of V angles in
        degrees."""

    def see(self, images: Tensor) -> Tensor:
        """The viewing directions that its discriminator sees in uint8 images [B, 3, R, R]."""


class ImageSet(NamedTuple):
    """images: len() and [i] -> uint8 [3, R, R]. fingerprint: of content and preparation."""

    images: Sequence[Tensor]
    fingerprint: str

    def batch(self, indices: Sequence[int]) -> Tensor:
        """uint8 [B, 3, R, R]."""
        with ThreadPoolExecutor(READERS) as readers:
            return torch.stack(list(readers.map(lambda i: self.images[int(i)], indices)))

    def choose(self, count: int) -> np.ndarray:
        """Numbers of up to `count` photographs in an order drawn once and for all."""
        return np.random.default_rng(0).permutation(len(self.images))[:count]


@dataclass(eq=False)
class Context:
    """One network and the photographs to compare it with.

    photographs: all of them, as they are. shown: as training shows them, with mirroring and a limit
    on their number. true_directions: [N, 3], of `photographs`, or None where nobody knows.
    detector: see `load_detector`. count: of samples; None leaves it to each metric.
    """

    subject: EvaluatedModel
    photographs: ImageSet
    shown: ImageSet
    true_directions: Tensor | None
    runner: Runner
    detector: str = INCEPTION
    count: int | None = None
    _done: dict[tuple, Any] = field(default_factory=dict)

    def once(self, key: tuple, compute: Callable[[], T]) -> T:
        """What compute() returned the first time: metrics share what takes long."""
        if key not in self._done:
            self._done[key] = compute()
        return self._done[key]

    def load_detector(self, which: str) -> Detector:
        return self.once(("detector", which), lambda: self._load_detector(which))

    def _load_detector(self, which: str) -> Detector:
        for turn in (True, False):  # the first process first: it may have to download
            with self.runner.raise_together():
                if turn == (distributed.rank() == 0):
                    detector = load_detector(which, self.runner.device)
        return detector

    def sample_features(self, detector: Detector, count: int) -> Tensor:
        """Of `count` samples, [count, F]."""

        def features(indices: range) -> Tensor:
            return detector.features(to_uint8(self.subject.sample(indices)))

        return self.once(
            ("samples", detector.name, count),
            lambda: self.runner.map(features, count, "features of samples"),
        )

    def known_directions(self) -> Tensor:
        """Raises UserError where nobody knows them."""
        if self.true_directions is None:
            raise UserError(
                "the poses of this data set are not known: camera labels (dataset.json) or the "
                "ground truth of a toy set are needed"
            )
        return self.true_directions
