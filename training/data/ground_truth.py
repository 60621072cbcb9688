"""The truth behind pictures whose cameras are known: for evaluation only, never for training."""

import io
import os
from typing import NamedTuple

import numpy as np

from dnnlib import UserError
from training.data.archive import GROUND_TRUTH, DatasetArchive, UnreadableError, one_line, printable


class GroundTruth(NamedTuple):
    """What is known of the N images of a data set, in the order of their names.

    Attributes:
        pose: float64 [N, 2], (h, v) in radians.
        depth: float16 [N, R, R], as in `Render`.
        identity: int64 [N], which object it is; of toy heads the seeds for `Head.random`.
        cam2world: float32 [N, 4, 4].
    """

    pose: np.ndarray
    depth: np.ndarray
    identity: np.ndarray
    cam2world: np.ndarray

    @classmethod
    def stack(cls, truths: "list[GroundTruth]") -> "GroundTruth":
        """Of single images, without the axis N, that of all."""
        return cls(*(np.stack(column) for column in zip(*truths, strict=True)))

    def to_bytes(self, **others: np.ndarray) -> bytes:
        """The contents of the file `ground_truth.npz`, with other arrays besides."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **(self._asdict() | others))
        return buffer.getvalue()


def load_ground_truth(path: str | os.PathLike) -> GroundTruth:
    """The truth behind the images of a data set.

    Raises:
        UserError: where there is none, or none that can be read.
    """
    archive = DatasetArchive(path)
    if not archive.exists(GROUND_TRUTH):
        raise UserError(
            f"{printable(path)} has no {GROUND_TRUTH}; `dataset_tool.py toy` makes sets that have "
            "one"
        )
    data = archive.read(GROUND_TRUTH)
    try:
        with np.load(io.BytesIO(data)) as arrays:
            return GroundTruth(**{field: arrays[field] for field in GroundTruth._fields})
    except Exception as error:  # numpy and zipfile raise whatever a broken file leads them to
        raise UnreadableError(f"cannot read {GROUND_TRUTH} ({one_line(error)})") from error
