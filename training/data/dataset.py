"""The photographs of training and evaluation, and the cameras of their labels."""

import os
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dnnlib import UserError
from training.cameras import mirror_cam2world
from training.data.archive import DatasetArchive, UnreadableError, printable
from training.data.geometry import CROPS, to_square
from training.data.labels import read_labels

_WHITE = 245  # levels, of 255: JPEG adds noise
_EXAMINED = 64  # images

LabelUse = Literal["required", "optional", "ignore"]


class ImageDataset(Dataset):
    """uint8 images [3, R, R] from a zip or a folder, and the cameras of their labels if any.

    Files other than images and `dataset.json` are not read.

    Args:
        path: zip or folder, read with its sub-folders.
        resolution: R; None takes the first image's.
        crop: 'center' or 'pad', see `square_corner`.
        mirror: append an x-flipped copy of every image.
        max_images: keep a random subset of this size, chosen by `seed`, before mirroring.
        seed: of that subset.
        labels: 'required' and 'optional' read the cameras; without labels 'required' is an error.
            'ignore' does not read them.

    Attributes:
        all_intrinsics: float32 [N, 3, 3], normalized by image size, of the labels; None without.
        all_cam2world: float32 [N, 4, 4], of the labels; None without.
        notes: what the user should know of files and labels that are not used, one line each.

    Raises:
        UserError: for bad data.
    """

    all_intrinsics: Tensor | None
    all_cam2world: Tensor | None

    def __init__(
        self,
        path: str | os.PathLike,
        resolution: int | None = None,
        crop: str = "center",
        mirror: bool = False,
        max_images: int | None = None,
        seed: int = 0,
        labels: LabelUse = "optional",
    ):
        if crop not in CROPS:
            raise UserError(f"unknown crop {crop!r}; choose from {', '.join(CROPS)}")
        if labels not in get_args(LabelUse):
            raise UserError(f"unknown use of labels {labels!r}; one of {get_args(LabelUse)}")
        if max_images is not None and max_images < 1:
            raise UserError(f"max_images is {max_images}; it must be at least 1")
        self._archive = DatasetArchive(path)
        self._crop, self._mirror = crop, mirror
        self._names = self._archive.image_names()
        self.notes = list(self._archive.notes)
        cameras = self._read_cameras(labels)
        if max_images is not None and max_images < len(self._names):
            chosen = np.random.default_rng(seed).permutation(len(self._names))[:max_images]
            self._names = [self._names[i] for i in sorted(chosen)]
        self.name = printable(self._archive.path.stem)
        self.all_intrinsics, self.all_cam2world = self._stack_cameras(cameras)
        self.resolution = resolution or self._read(0, None).width

    def __len__(self) -> int:
        return len(self._names) * (2 if self._mirror else 1)

    def __getitem__(self, index: int) -> Tensor:
        """An image, uint8 [3, R, R].

        Raises:
            UnreadableError: it names the file.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        flipped, index = divmod(index, len(self._names))
        pixels = np.asarray(self._read(index, self.resolution)).transpose(2, 0, 1)
        return torch.from_numpy(np.array(pixels[..., ::-1] if flipped else pixels, order="C"))

    def _read(self, index: int, resolution: int | None) -> Image.Image:
        labeled = self.all_intrinsics is not None
        try:
            image = self._archive.read_image(self._names[index], labeled)
        except UnreadableError as error:
            raise UnreadableError(
                f"{printable(self._archive.path)}: {error}; `dataset_tool.py check` lists all "
                "faults"
            ) from error
        return to_square(image, resolution, self._crop)

    def _read_cameras(self, use: LabelUse) -> dict[str, list[float]] | None:
        """Labels of all images by name, or None. Raises UserError for what `use` cannot bear."""
        if use == "ignore":
            if files := self._archive.label_files():
                self.notes.append(f"{printable(files[0])} is not used")
            return None
        labels = read_labels(self._archive)
        self.notes += labels.notes
        path = printable(self._archive.path)
        if labels.faults:
            raise UserError(f"{path}: {labels.faults[0]}; `dataset_tool.py check` lists all faults")
        if labels.cameras is None and use == "required":
            reasons = "; ".join(labels.notes)
            raise UserError(f"{path} has no camera labels" + (f" ({reasons})" if reasons else ""))
        return labels.cameras

    def _stack_cameras(
        self, cameras: dict[str, list[float]] | None
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Intrinsics and cam2world of all images, mirrored ones last."""
        if cameras is None:
            return None, None
        rows = torch.tensor([cameras[name] for name in self._names], dtype=torch.float32)
        cam2world, intrinsics = rows[:, :16].reshape(-1, 4, 4), rows[:, 16:].reshape(-1, 3, 3)
        if not self._mirror:
            return intrinsics, cam2world
        flipped = intrinsics.clone()
        flipped[:, 0, 1] = -flipped[:, 0, 1]  # skew
        flipped[:, 0, 2] = 1 - flipped[:, 0, 2]  # principal point
        mirrored = mirror_cam2world(cam2world, "horizontal")
        return torch.cat([intrinsics, flipped]), torch.cat([cam2world, mirrored])


def has_white_background(dataset: ImageDataset) -> bool:
    """Whether images show an object before white: in most, most of the outermost pixels are."""
    chosen = np.linspace(0, len(dataset) - 1, min(_EXAMINED, len(dataset))).astype(int)
    images = torch.stack([dataset[int(i)] for i in chosen])
    white = (images >= _WHITE).all(dim=1)
    border = torch.cat([white[:, 0], white[:, -1], white[:, 1:-1, 0], white[:, 1:-1, -1]], dim=1)
    return bool((border.float().mean(dim=1) > 0.5).float().mean() > 0.5)
