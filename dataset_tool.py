"""Make and check data sets: zips of square images that `training.dataset` reads."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple, TypeVar

import click
import numpy as np
from tqdm import tqdm

from dnnlib import Command, UserError
from training.data.dataset import (
    CROPS,
    LABEL_FILE,
    DatasetArchive,
    dataset_writer,
    png_bytes,
    read_labels,
    square_corner,
    to_square,
)
from training.data.toy_heads import GROUND_TRUTH, make_toy_dataset

T = TypeVar("T")


@click.group()
def main() -> None:
    """Make and check data sets."""


def _zip_path(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    if value.suffix.lower() != ".zip":
        raise click.BadParameter(f"{value} must end in .zip")
    return value


_dest_option = click.option(
    "--dest",
    type=click.Path(path_type=Path),
    required=True,
    callback=_zip_path,
    help="Zip to write; one that exists is replaced.",
)


@main.command(cls=Command)
@click.option("--source", metavar="DIR|ZIP", required=True, help="Images, in any sub-folders.")
@_dest_option
@click.option("--resolution", type=click.IntRange(min=1), required=True, help="Side in pixels.")
@click.option(
    "--crop",
    type=click.Choice(CROPS),
    default="center",
    show_default=True,
    help="Cut the largest central square, or pad with white to the smallest one.",
)
@click.option("--max-images", type=click.IntRange(min=1), help="Only the first N images by name.")
@click.option("--skip-bad", is_flag=True, help="Leave corrupt images out instead of stopping.")
def convert(
    source: str, dest: Path, resolution: int, crop: str, max_images: int | None, skip_bad: bool
) -> None:
    """Square, resize and pack images.

    Camera labels of the source's dataset.json come along. Where an image is cropped or padded, its
    label's intrinsics, which are relative to the image's size, follow.
    """
    archive = DatasetArchive(source)
    labels, faults = read_labels(archive)
    if faults:
        raise UserError(f"{source}: {faults[0]}; `dataset_tool.py check` lists all faults")
    all_names = archive.image_names()
    names = all_names[:max_images]

    def convert_one(name: str) -> _Converted | UserError:
        try:
            image = archive.read_image(name)
        except UserError as error:
            return error
        label = None if labels is None else squared_label(labels[name], *image.size, crop)
        return _Converted(png_bytes(to_square(image, resolution, crop)), label)

    new_labels, skipped = [], 0
    with dataset_writer(dest) as writer:
        for converted in _in_threads(convert_one, names, "convert"):
            if not isinstance(converted, UserError):
                new_labels.append((writer.add_image(converted.png), converted.label))
            elif skip_bad:
                tqdm.write(f"skipped: {converted}")
                skipped += 1
            else:
                raise UserError(f"{source}: {converted}; --skip-bad leaves such images out")
        if not new_labels:
            raise UserError(f"{source}: not one image could be read")
        if labels is not None:
            writer.add_file(LABEL_FILE, json.dumps({"labels": new_labels}).encode())
        if len(new_labels) == len(all_names) and archive.exists(GROUND_TRUTH):
            writer.add_file(GROUND_TRUTH, archive.read(GROUND_TRUTH))
    click.echo(f"{dest}: {len(new_labels)} images, {resolution} x {resolution}; {skipped} skipped")


class _Converted(NamedTuple):
    png: bytes
    label: list[float] | None


def squared_label(label: list[float], width: int, height: int, crop: str) -> list[float]:
    """A camera label (cam2world 16, intrinsics 9) after `to_square` of a width x height image.

    Intrinsics are in units of the image's width and height: focal lengths and skew scale, the
    principal point shifts too. Those of square images stay as they are.
    """
    left, top, side = square_corner(width, height, crop)
    squared = np.array([[width, 0, -left], [0, height, -top], [0, 0, side]]) / side
    intrinsics = squared @ np.reshape(label[16:], (3, 3))
    return [*label[:16], *intrinsics.flatten().tolist()]


def _in_threads(
    function: Callable[[str], T], names: Sequence[str], description: str
) -> Iterator[T]:
    """function of each name, in order, with a progress bar. Pillow works outside Python's lock."""
    with ThreadPool(os.cpu_count()) as pool:
        results = pool.imap(function, names)
        yield from tqdm(results, total=len(names), desc=description, unit="img")


@main.command(cls=Command)
@click.argument("data", metavar="DATA")
def check(data: str) -> None:
    """Read every image of DATA (a folder or zip) and its labels, and print all faults."""
    archive = DatasetArchive(data)
    names = archive.image_names()
    labels, faults = read_labels(archive)

    def examine(name: str) -> int | UserError:
        try:
            return min(archive.read_image(name, labeled=labels is not None).size)
        except UserError as error:
            return error

    results = list(_in_threads(examine, names, "check"))
    faults += [str(result) for result in results if isinstance(result, UserError)]
    if faults:
        click.echo("\n".join(faults))
        raise UserError(f"{data}: {len(names)} images, number of faults: {len(faults)}")
    kind = "without labels" if labels is None else "with camera labels"
    click.echo(
        f"{data}: {len(names)} images {kind}, {min(results)} to {max(results)} pixels on their "
        "shorter side, no fault"
    )


@main.command(cls=Command)
@_dest_option
@click.option("--count", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--resolution", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--labels", is_flag=True, help="Also tell the cameras, for train.py --poses dataset.")
def toy(dest: Path, count: int, resolution: int, seed: int, labels: bool) -> None:
    """Photograph procedural heads from random, unrecorded cameras.

    The truth lies beside the images in ground_truth.npz, for evaluation only.
    """
    make_toy_dataset(dest, count, resolution, seed, labels=labels)


if __name__ == "__main__":
    main()
