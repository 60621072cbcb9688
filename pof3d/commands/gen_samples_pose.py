"""Draw samples from a trained network: images, the poses they are seen from, shapes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dnnlib import SeedList, finite
from pof3d.commands import options
from pof3d.commands.eg3d_options import SAMPLES, HintingCommand


class DegreeList(click.ParamType):
    """'-20,0,20' -> [-20.0, 0.0, 20.0], none of them beyond the limit."""

    name = "degrees"

    def __init__(self, limit: float):
        self.limit = limit

    def convert(self, value: Any, param: Any, ctx: Any) -> list[float]:
        """Parse a list of degrees."""
        try:
            degrees = [float(part) + 0.0 for part in value.split(",")]  # + 0.0: no negative zero
        except ValueError:
            self.fail(f"'{value}' is not a list of degrees; write -20,0,20", param, ctx)
        if not all(abs(angle) <= self.limit for angle in degrees):
            self.fail(f"{value}: angles go from -{self.limit:g} to {self.limit:g}", param, ctx)
        return degrees


class Level(click.ParamType):
    """'auto', or a finite number."""

    name = "auto|density"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse a level."""
        if value == "auto":
            return value
        return finite(ctx, param, click.FLOAT.convert(value, param, ctx))


@click.command(
    cls=HintingCommand,
    elsewhere=SAMPLES,
    memory_hint="a smaller --batch, --render-size or --shape-res",
    context_settings={"show_default": True},
)
@options.network
@click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Made when missing.")
@options.seeds
@options.latent
@click.option(
    "--dataset",
    type=options.Preset(),
    help="What the network was trained on; checked against the file, with a warning.",
)
@options.truncation(1.0)
@options.trunc_cutoff
@options.fov_deg
@click.option(
    "--yaw",
    type=DegreeList(360),
    help="Further views of each seed: degrees around the canonical one, as -20,0,20.",
)
@click.option(
    "--pitch", type=DegreeList(90), help="Likewise, upward; every yaw is joined with every pitch."
)
@options.render_size
@click.option("--raw", is_flag=True, help="Also write the rendering before super-resolution.")
@click.option("--depth", is_flag=True, help="Also write depth: near is yellow, far is violet.")
@click.option("--shapes", type=bool, default=False, help="Also write the shape of each seed.")
@click.option("--shape-res", type=click.IntRange(2, 1024), default=128, help="Grid points a side.")
@click.option(
    "--shape-format",
    type=click.Choice([".mrc", ".ply", ".obj", ".glb", ".stl"]),
    default=".mrc",
    help="A volume of densities, or the colored mesh of their surface.",
)
@click.option(
    "--texture",
    type=click.IntRange(64, 8192),
    metavar="PIXELS",
    help="Simplify .glb or .obj and paint a texture of this size, as 1024.",
)
@click.option(
    "--faces", type=click.IntRange(min=100), default=10_000, help="Left of a mesh with --texture."
)
@click.option("--keep-largest", is_flag=True, help="Drop all parts of a mesh but the largest.")
@click.option("--shape-preview", is_flag=True, help="Also write a shaded picture of each shape.")
@click.option(
    "--level",
    type=Level(),
    show_default=".mrc, .ply: 10, or what is as opaque at the network's density scale; else auto",
    help="Density at the surface, as it is before the renderer's softplus; auto: the level at "
    "which silhouettes agree best with the rendered opacity.",
)
@click.option(
    "--mix-with",
    type=SeedList(),
    metavar="SEEDS",
    help="Also write style_mixing.png: rows are --seeds, columns these, which give some layers.",
)
@click.option(
    "--mix-layers",
    type=SeedList(),
    metavar="LAYERS",
    show_default="the second half",
    help="Layers that come from --mix-with, as 4-7.",
)
@click.option("--batch", type=click.IntRange(min=1), default=4, help="Seeds at a time.")
@options.device
@options.precision
def main(
    network: Path,
    seeds: Sequence[int] | None,
    latent: Sequence[Path],
    dataset: str | None,
    device: str,
    precision: str,
    **chosen: Any,
) -> None:
    """Draw samples from a trained network: images, the poses they are seen from, shapes."""
    from torch_utils.devices import select_device
    from training.files.network_file import load_network
    from training.outputs.samples import SampleOptions, write_samples

    if bool(latent) == (seeds is not None):
        raise click.UsageError("give either --seeds, as 0-3,7, or --latent FILE.npz")
    generator = load_network(network, select_device(device), precision).generator
    _warn_of_other_preset(network, dataset, generator.config.preset)
    drawn = SampleOptions(seeds=seeds or (), latent=latent, **chosen)
    for line in write_samples(generator, drawn):
        click.echo(line)


def _warn_of_other_preset(network: Path, claimed: str | None, trained: str) -> None:
    from training.presets import PRESET_ALIASES

    if claimed is not None and PRESET_ALIASES.get(claimed, claimed) != trained:
        click.echo(
            f"warning: --dataset {claimed}, but {network} was trained as {trained}; "
            "the file's settings are used",
            err=True,
        )
