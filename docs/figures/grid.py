"""The first pictures of a data set, as a grid.

python docs/figures/grid.py --dest FILE.png --columns 8 --count 32 SET.zip
"""

import io
import zipfile
from pathlib import Path

import click
from PIL import Image


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@click.option("--columns", type=int, default=8)
@click.option("--count", type=int, default=32)
def main(source: Path, dest: Path, columns: int, count: int) -> None:
    """Pictures of one size, row by row."""
    with zipfile.ZipFile(source) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))[:count]
        pictures = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    grid = Image.new("RGB", (columns * width, rows * height), "white")
    for i, picture in enumerate(pictures):
        grid.paste(picture, (i % columns * width, i // columns * height))
    grid.save(dest)


if __name__ == "__main__":
    main()
