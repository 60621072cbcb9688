"""Options that several commands share, each stated once."""

from pathlib import Path

import click

from dnnlib import SeedList, finite

network = click.option(
    "--network",
    type=click.Path(path_type=Path),
    metavar="FILE|RUN",
    required=True,
    help="Network file, or a run folder, whose newest network is taken.",
)
seeds = click.option("--seeds", type=SeedList(), required=True, help="List and ranges, as 0-3,7.")
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
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
