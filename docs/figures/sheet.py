"""Put pictures of one size into a sheet, row by row.

python docs/figures/sheet.py --dest FILE.png [--columns 1] [--side 192] PICTURE…
"""

from pathlib import Path

import click
from PIL import Image


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@click.option("--columns", type=click.IntRange(min=1), help="[one row]")
@click.option("--side", type=click.IntRange(min=1), help="Of each in pixels.  [its own]")
def main(pictures: tuple[Path, ...], dest: Path, columns: int | None, side: int | None) -> None:
    """Write all PICTURES as one."""
    images = [Image.open(path).convert("RGB") for path in pictures]
    if side:
        images = [image.resize((side, side)) for image in images]
    (width, height), columns = images[0].size, columns or len(images)
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * width, i // columns * height))
    sheet.save(dest)


if __name__ == "__main__":
    main()
