"""Make and check data sets: zips of square images that training reads."""

from pathlib import Path
from typing import Any

import click

from dnnlib import Command, UserError
from pof3d.commands.eg3d_options import DATASET, HintingCommand


class _ConvertByDefault(click.Group):
    """A group that takes options without a subcommand for those of convert, as EG3D's tool does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx):
            args = ["convert", *args]
        return super().parse_args(ctx, args)


class _Crop(click.Choice):
    """A choice that knows what crops were called in earlier versions."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        from training import old_names

        current = old_names.current_settings({"data.crop": value})["data.crop"]
        return super().convert(current, param, ctx)


class _Resolution(click.ParamType):
    """256, or 256x256 as EG3D's tool has it."""

    name = "integer"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        width, _, height = str(value).lower().partition("x")
        if not (width.isdecimal() and int(width) > 0):
            self.fail(f"{value} is not a number of pixels: it is not in the range x>=1", param, ctx)
        if height and height != width:
            self.fail(f"{value} is not square; write {width}", param, ctx)
        return int(width)


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


@click.group(cls=_ConvertByDefault)
def main() -> None:
    """Make and check data sets."""


@main.command(cls=HintingCommand, elsewhere=DATASET)
@click.option("--source", metavar="DIR|ZIP", required=True, help="Images, in any sub-folders.")
@_dest_option
@click.option("--resolution", type=_Resolution(), required=True, help="Side in pixels.")
@click.option(
    "--crop",
    type=_Crop(("center", "pad")),
    default="center",
    show_default=True,
    help="Cut the largest central square, or pad with white to the smallest one.",
)
@click.option("--max-images", type=click.IntRange(min=1), help="Only the first N images by name.")
@click.option(
    "--skip-bad", is_flag=True, help="Leave bad images and labels out instead of stopping."
)
def convert(
    source: str, dest: Path, resolution: int, crop: str, max_images: int | None, skip_bad: bool
) -> None:
    """Square, resize and pack images.

    Camera labels of the source's dataset.json come along. Where an image is cropped, padded or
    turned upright, its label follows.
    """
    from training.data import convert as work

    done = work.convert(source, dest, resolution, crop, max_images, skip_bad)
    click.echo(
        f"{dest}: {done.written} images, {resolution} x {resolution}; {done.skipped} skipped"
    )


@main.command(cls=Command)
@click.argument("data", metavar="DATA")
def check(data: str) -> None:
    """Read every image of DATA (a folder or zip) and its labels, and print all faults."""
    from training.data import convert as work
    from training.data.archive import printable

    found = work.check(data)
    for line in [*found.faults, *(f"note: {note}" for note in found.notes)]:
        click.echo(line)
    data = printable(data)
    if found.faults:
        raise UserError(f"{data}: {found.images} images, number of faults: {len(found.faults)}")
    kind = "with camera labels" if found.labeled else "without labels"
    click.echo(
        f"{data}: {found.images} images {kind}, {min(found.sides)} to {max(found.sides)} pixels on "
        "their shorter side, no fault"
    )


@main.command(cls=Command)
@_dest_option
@click.option(
    "--count", type=click.IntRange(min=1), default=10_000, show_default=True, help="Images."
)
@click.option(
    "--resolution",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Side in pixels.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."
)
@click.option(
    "--labels", is_flag=True, help="Also write camera labels, for train.py --poses dataset."
)
def toy(dest: Path, count: int, resolution: int, seed: int, labels: bool) -> None:
    """Photograph procedural heads from random, unrecorded cameras.

    The truth lies beside the images in ground_truth.npz, for evaluation only.
    """
    from training.data.toy_set import make_toy_dataset

    make_toy_dataset(dest, count, resolution, seed, labels=labels)
