"""Options that several commands share, each stated once."""

from pathlib import Path
from typing import Any

import click

from dnnlib import SeedList, finite


class Preset(click.ParamType):
    """The name of a preset; the list of them is imported only to check one."""

    name = "preset"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Check the name as click.Choice does."""
        from training.presets import PRESET_ALIASES, PRESETS

        return click.Choice([*PRESETS, *PRESET_ALIASES]).convert(value, param, ctx)


network = click.option(
    "--network",
    type=click.Path(path_type=Path),
    metavar="FILE|RUN",
    required=True,
    help="Network file, or a run folder, whose newest network is taken.",
)
seeds = click.option("--seeds", type=SeedList(), help="List and ranges, as 0-3,7.")
latent = click.option(
    "--latent",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    multiple=True,
    help="Instead of seeds, objects that `pof3d project` found; may be repeated.",
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)

precision = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="What the generator computes in; bf16 is faster on CPUs that have it, and differs by a "
    "few levels of 255; auto: bf16 on such a CPU, fp16 on CUDA.",
)


def truncation(default: float):
    """--trunc, as the field spells truncation psi."""
    return click.option(
        "--trunc",
        type=float,
        default=default,
        show_default=True,
        callback=finite,
        help="Truncation; below 1 it trades variety for quality.",
    )


render_size = click.option(
    "--render-size",
    type=click.IntRange(4, 4096),
    show_default="as trained",
    help="Side of the rendering in pixels; of the image, too, where there is no super-resolution.",
)
fov_deg = click.option(
    "--fov-deg",
    type=click.FloatRange(0, 180, min_open=True, max_open=True),
    callback=finite,
    show_default="the network's",
    help="Field of view in degrees.",
)
trunc_cutoff = click.option(
    "--trunc-cutoff",
    type=click.IntRange(min=0),
    default=14,
    show_default=True,
    help="Layers that are truncated.",
)
