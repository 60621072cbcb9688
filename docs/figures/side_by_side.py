"""Put pictures beside each other, or below.

python docs/figures/side_by_side.py --dest FILE.png [--below] PICTURE…
"""

from pathlib import Path

import click
from PIL import Image

SIDE = 192  # pixels of each picture in a row


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@click.option("--below", is_flag=True, help="One below the other, in their own size.")
def main(pictures: tuple[Path, ...], dest: Path, below: bool) -> None:
    """Square pictures in a row, all of one size; or pictures of one width in a column."""
    images = [Image.open(path).convert("RGB") for path in pictures]
    if below:
        heights = [image.height for image in images]
        sheet = Image.new("RGB", (images[0].width, sum(heights)), "white")
        places = [(0, sum(heights[:i])) for i in range(len(images))]
    else:
        images = [image.resize((SIDE, SIDE)) for image in images]
        sheet = Image.new("RGB", (SIDE * len(images), SIDE), "white")
        places = [(SIDE * i, 0) for i in range(len(images))]
    for image, place in zip(images, places, strict=True):
        sheet.paste(image, place)
    sheet.save(dest)


if __name__ == "__main__":
    main()
