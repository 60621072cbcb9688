"""Estimate the depth, normals and mesh of photographs with a trained inverse renderer (GeoD)."""

from pathlib import Path

import click

from dnnlib import Command
from pof3d.commands import options


@click.command(cls=Command)
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="Network file written with --with-ir, or a published checkpoint that holds IR.",
)
@click.option("--data", metavar="ZIP|DIR", required=True, help="Photographs.")
@click.option(
    "--outdir",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the results; nothing in it is overwritten.",
)
@options.device
def main(network: Path, data: str, outdir: Path, device: str) -> None:
    """Write NAME.png (photograph, depth, normals, turned views) and NAME.ply of each photograph.

    An inverse renderer knows one kind of object, seen more or less from the front, in 64 pixels.
    """
    from torch_utils.devices import select_device
    from training.data.dataset import DatasetArchive
    from training.files.inverse_renderer_file import load_inverse_renderer_file
    from training.outputs.photograph_shapes import save_shapes

    inverse_renderer = load_inverse_renderer_file(network, select_device(device))
    count = save_shapes(inverse_renderer, DatasetArchive(data), outdir)
    click.echo(f"{count} photographs: pictures and meshes in {outdir}")
