"""Estimate the depth, normals and mesh of photographs with a trained inverse renderer (GeoD).

The inverse renderer knows one kind of object, seen more or less from the front. Its image is 64
pixels wide, and so are the results.
"""

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from dnnlib import Command, UserError, atomic_write
from training.data.dataset import DatasetArchive, to_square
from training.files.legacy_inverse_renderer import read_inverse_renderer
from training.networks.discriminator import resize
from training.networks.image_formation import SIZE
from training.networks.inverse_renderer import InverseRenderer
from training.outputs.figures import TURNS, tile
from training.outputs.geod_figures import (
    canonical_mesh,
    depth_images,
    normal_images,
    turned_images,
)
from training.outputs.meshes import save_ply

TRAINED_AT = 256  # pixels of the photographs that published networks were trained with


@click.command(cls=Command)
@click.option(
    "--network", metavar="FILE", required=True, help="Checkpoint that holds an inverse renderer."
)
@click.option("--data", metavar="ZIP|DIR", required=True, help="Photographs.")
@click.option(
    "--outdir",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the results; it must not hold files of their names yet.",
)
def main(network: str, data: str, outdir: Path) -> None:
    """Write NAME.png (photograph, depth, normals, turned views) and NAME.ply of photographs."""
    archive = DatasetArchive(data)
    names = archive.image_names()
    targets = {name: outdir / str(Path(name).with_suffix("")).replace("/", "-") for name in names}
    _refuse_clashes(list(targets.values()))
    inverse_renderer = read_inverse_renderer(network).to(_device())
    _make_folder(outdir)
    for name, target in targets.items():
        image = _photograph(archive, name).to(_device())
        _save(target, inverse_renderer, image)
    click.echo(f"{len(names)} photographs: pictures and meshes in {outdir}")


def _refuse_clashes(targets: list[Path]) -> None:
    """Nothing is overwritten, be it of an earlier run or of this one."""
    for target in targets:
        for path in (_beside(target, ".png"), _beside(target, ".ply")):
            if path.exists():
                raise UserError(f"{path} exists: choose another --outdir")
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise UserError(f"two photographs would be written as {twice}: rename one of them")


def _make_folder(outdir: Path) -> None:
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--outdir {outdir}: cannot make this folder ({error.strerror})") from error


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _photograph(archive: DatasetArchive, name: str) -> Tensor:
    """[1, 3, 64, 64] in [-1, 1]: the middle square, brought to size as in training."""
    pixels = np.array(to_square(archive.read_image(name), TRAINED_AT, "centre"))
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    return resize(image, SIZE)


@torch.no_grad()
def _save(target: Path, network: InverseRenderer, image: Tensor) -> None:
    geometry = network.geometry(image)
    row = [
        image,
        depth_images(geometry.depth[:1], network.frustum),
        normal_images(geometry.normal[:1]),
        turned_images(network, image)[0],
    ]
    with atomic_write(_beside(target, ".ply")) as temporary:
        save_ply(temporary, canonical_mesh(network, image))
    with atomic_write(_beside(target, ".png")) as temporary:
        tile(torch.cat(row).cpu(), columns=3 + len(TURNS)).save(temporary, format="png")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
