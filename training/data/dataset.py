"""Images from a zip or a folder, and the order in which training sees them."""

import contextlib
import functools
import io
import json
import math
import os
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dnnlib import UserError, atomic_write
from training.cameras import mirror_cam2world

LABEL_FILE = "dataset.json"
LABEL_LENGTH = 25  # cam2world, 16 numbers, then intrinsics, 9; both row by row

CROPS = ("center", "pad")

# Pillow knows these by name but decodes them only with outside help, or not at all.
_UNDECODABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


class DatasetArchive:
    """The files of a zip or of a folder with all its sub-folders, by name.

    Safe in worker processes: it pickles without its handle, and each process opens its own.
    Raises UserError when `path` is missing or neither of the two.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._zip_owner: int | None = None
        if not self.path.exists():
            raise UserError(f"no such data set: {self.path}; give a zip or a folder of images")
        if self.path.is_dir():
            found = (Path(root, name) for root, _, names in os.walk(self.path) for name in names)
            names = [file.relative_to(self.path).as_posix() for file in found]
        else:
            names = [info.filename for info in self._open_zip().infolist() if not info.is_dir()]
        self._names = set(names)

    def image_names(self) -> list[str]:
        """Sorted names of all images, known by extension; hidden files are left out."""
        names = sorted(name for name in self._names if _is_image_name(name))
        if not names:
            raise UserError(f"no images in {self.path}; any format that Pillow reads will do")
        return names

    def exists(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        if self.path.is_dir():
            return (self.path / name).read_bytes()
        return self._open_zip().read(name)

    def read_image(self, name: str, labeled: bool = False) -> Image.Image:
        """An image, upright, in RGB on white.

        Raises UserError that names the image when it is corrupt, and when it is `labeled` (has a
        camera, whose intrinsics a crop would change) but not square.
        """
        try:
            with Image.open(io.BytesIO(self.read(name))) as file:
                image = _to_rgb(ImageOps.exif_transpose(file))
        except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
            raise UserError(f"cannot read image {name} ({_one_line(error)})") from error
        if labeled and image.width != image.height:
            raise UserError(
                f"image {name} has a camera label but is {image.width} x {image.height}, not "
                "square; `dataset_tool.py convert` crops image and label together"
            )
        return image

    def _open_zip(self) -> zipfile.ZipFile:
        # A handle inherited by fork shares its file position with the parent's.
        if self._zip is None or self._zip_owner != os.getpid():
            try:
                self._zip, self._zip_owner = zipfile.ZipFile(self.path), os.getpid()
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(
                    f"{self.path} is neither a folder nor a readable zip ({_one_line(error)})"
                ) from error
        return self._zip

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_zip": None}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@functools.cache
def _image_extensions() -> frozenset[str]:
    formats = Image.registered_extensions()  # fills Image.OPEN as well
    decodable = Image.OPEN.keys() - _UNDECODABLE
    return frozenset(extension for extension, kind in formats.items() if kind in decodable)


def _is_image_name(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.suffix.lower() in _image_extensions()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip instead of scale
        gray = np.asarray(image, dtype=np.float64) / 257
        image = Image.fromarray(gray.round().clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def square_corner(width: int, height: int, crop: str) -> tuple[int, int, int]:
    """(left, top, side) in pixels of the square that stands for an image; negative where it pads.

    crop: 'center' takes the largest central square, 'pad' the smallest that holds the image.
    """
    side = min(width, height) if crop == "center" else max(width, height)
    return (width - side) // 2, (height - side) // 2, side


def to_square(image: Image.Image, resolution: int | None, crop: str) -> Image.Image:
    """Crop or pad (with white) to a square, then Lanczos to `resolution`; None keeps the size."""
    left, top, side = square_corner(*image.size, crop)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(image, (-left, -top))
    if resolution in (None, side):
        return canvas
    return canvas.resize((resolution, resolution), Image.Resampling.LANCZOS)


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


def read_labels(archive: DatasetArchive) -> tuple[dict[str, list[float]] | None, list[str]]:
    """The labels of `dataset.json` by image name, and every fault found in the file.

    None stands for a data set without labels: no such file, or "labels": null.
    """
    if not archive.exists(LABEL_FILE):
        return None, []
    try:
        entries = json.loads(archive.read(LABEL_FILE))["labels"]
        labels = None if entries is None else {name: label for name, label in entries}
    except (ValueError, LookupError, TypeError, OSError, zipfile.BadZipFile) as error:
        return None, [
            f'{LABEL_FILE} is not of the form {{"labels": [[name, numbers], …]}} ({error!r})'
        ]
    if labels is None:
        return None, []
    faults = [f"no label for image {name}" for name in archive.image_names() if name not in labels]
    for name, label in labels.items():
        if not archive.exists(name):
            faults.append(f"label for {name}, which does not exist")
        elif not _is_label(label):
            faults.append(f"label of {name} is not a list of {LABEL_LENGTH} finite numbers")
    return labels, [f"{LABEL_FILE}: {fault}" for fault in faults]


def _is_label(label: object) -> bool:
    return (
        isinstance(label, list)
        and len(label) == LABEL_LENGTH
        and all(isinstance(number, int | float) and math.isfinite(number) for number in label)
    )


class ImageDataset(Dataset):
    """uint8 images [3, R, R] from a zip or a folder, and the intrinsics of their labels if any.

    path: zip or folder, read with its sub-folders. resolution: R; None takes the first image's.
    crop: 'center' or 'pad', see `square_corner`. mirror: append an x-flipped copy of every image.
    max_images: keep a random subset of this size, chosen by `seed`, before mirroring.

    `all_intrinsics`: float32 [N, 3, 3], normalized by image size, and `all_cam2world`: float32
    [N, 4, 4], of the labels; None without.
    Nothing but images and `dataset.json` is ever read. Raises UserError on bad data.
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
    ):
        if crop not in CROPS:
            raise UserError(f"unknown crop {crop!r}; choose from {', '.join(CROPS)}")
        if max_images is not None and max_images < 1:
            raise UserError(f"max_images is {max_images}; it must be at least 1")
        self._archive = DatasetArchive(path)
        self._crop, self._mirror = crop, mirror
        self._names = self._archive.image_names()
        labels, faults = read_labels(self._archive)
        if faults:
            raise UserError(f"{path}: {faults[0]}")
        if max_images is not None and max_images < len(self._names):
            chosen = np.random.default_rng(seed).permutation(len(self._names))[:max_images]
            self._names = [self._names[i] for i in sorted(chosen)]
        self.name = self._archive.path.stem
        self.all_intrinsics, self.all_cam2world = self._cameras(labels)
        self.resolution = resolution or self._read(0, None).width

    def __len__(self) -> int:
        return len(self._names) * (2 if self._mirror else 1)

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        flipped, index = divmod(index, len(self._names))
        pixels = np.asarray(self._read(index, self.resolution)).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1] if flipped else pixels))

    def _read(self, index: int, resolution: int | None) -> Image.Image:
        labeled = self.all_intrinsics is not None
        try:
            image = self._archive.read_image(self._names[index], labeled)
        except UserError as error:
            raise UserError(
                f"{self._archive.path}: {error}; `dataset_tool.py check` lists all faults"
            ) from error
        return to_square(image, resolution, self._crop)

    def _cameras(
        self, labels: dict[str, list[float]] | None
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        if labels is None:
            return None, None
        rows = torch.tensor([labels[name] for name in self._names], dtype=torch.float32)
        cam2world, intrinsics = rows[:, :16].reshape(-1, 4, 4), rows[:, 16:].reshape(-1, 3, 3)
        if not self._mirror:
            return intrinsics, cam2world
        flipped = intrinsics.clone()
        flipped[:, 0, 1] = -flipped[:, 0, 1]  # skew
        flipped[:, 0, 2] = 1 - flipped[:, 0, 2]  # principal point
        mirrored = mirror_cam2world(cam2world, "horizontal")
        return torch.cat([intrinsics, flipped]), torch.cat([cam2world, mirrored])


class InfiniteOrder(Sampler[int]):
    """Indices for ever: epoch e is a permutation seeded by (seed, e).

    Rank r of `world_size` gets the positions start + r, start + r + world_size, …; the order is a
    function of seed and position alone, so a run continues from any `start`.
    """

    def __init__(
        self, size: int, seed: int = 0, rank: int = 0, world_size: int = 1, start: int = 0
    ):
        self._size, self._seed = size, seed
        self._first, self._stride = start + rank, world_size

    def __iter__(self) -> Iterator[int]:
        position, current = self._first, None
        while True:
            epoch, offset = divmod(position, self._size)
            if epoch != current:
                order = np.random.default_rng([self._seed, epoch]).permutation(self._size)
                current = epoch
            yield int(order[offset])
            position += self._stride


class Batch(NamedTuple):
    """images: uint8 [B, 3, R, R]. indices: int64 [B], which of the data set's they are."""

    images: Tensor
    indices: Tensor


def training_batches(
    dataset: ImageDataset,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Batches of one rank, for ever.

    start: images that all ranks together have consumed before. The batches depend on neither the
    number of workers nor any random state, and leave PyTorch's global one alone.
    """
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        batch_size,
        sampler=InfiniteOrder(len(dataset), seed, rank, world_size, start),
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_stack_or_error,
        generator=torch.Generator(),
        worker_init_fn=_leave_signals_to_training,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _leave_signals_to_training(_worker: int) -> None:
    """Ctrl-C and schedulers signal all processes; a step that has begun needs its data."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _ErrorsAsItems(Dataset):
    """Hands errors over as items: raised in a worker, their one line would drown in a traceback."""

    def __init__(self, dataset: ImageDataset):
        self._dataset = dataset

    def __getitem__(self, index: int) -> tuple[Tensor, int] | UserError:
        try:
            return self._dataset[index], index
        except UserError as error:
            return error


def _stack_or_error(items: list[tuple[Tensor, int] | UserError]) -> Batch | UserError:
    for item in items:
        if isinstance(item, UserError):
            return item
    images, indices = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.tensor(indices))


class DatasetWriter:
    """Adds images, in order, and other files to a zip that `ImageDataset` reads."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._count = 0

    def add_image(self, png: bytes) -> str:
        """Returns the name that the image got."""
        name = f"{self._count // 1000:05d}/img{self._count:08d}.png"
        self._count += 1
        self.add_file(name, png)
        return name

    def add_file(self, name: str, data: bytes) -> None:
        self._archive.writestr(zipfile.ZipInfo(name), data)  # a fixed date: same data, same bytes


@contextlib.contextmanager
def dataset_writer(dest: str | os.PathLike) -> Iterator[DatasetWriter]:
    """A writer whose zip (uncompressed: PNGs are) appears at `dest` whole or not at all."""
    dest = Path(dest)
    if not dest.parent.is_dir():
        raise UserError(f"cannot write {dest}: there is no folder {dest.parent}")
    try:
        with atomic_write(dest) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            yield DatasetWriter(archive)
    except OSError as error:
        raise UserError(f"cannot write {dest}: {error.strerror or error}") from error
