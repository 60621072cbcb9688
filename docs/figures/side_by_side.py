"""Put pictures beside each other.

python docs/figures/side_by_side.py --dest FILE.png PICTURE…
"""

from pathlib import Path

import click
from PIL import Image

SIDE = 192  # pixels of each picture


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="PNG to write.")
def main(pictures: tuple[Path, ...], dest: Path) -> None:
    """Square pictures in a row, all of one size."""
    row = Image.new("RGB", (SIDE * len(pictures), SIDE), "white")
    for i, path in enumerate(pictures):
        with Image.open(path) as picture:
            row.paste(picture.convert("RGB").resize((SIDE, SIDE)), (SIDE * i, 0))
    row.save(dest)


if __name__ == "__main__":
    main()
