"""Make a network file fit to be published: half the size, with its provenance and metrics."""

import json
from pathlib import Path

import click

from dnnlib import Command, UserError
from pof3d.commands import options


@click.command(cls=Command)
@options.network
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--note", "notes", multiple=True, metavar="KEY=VALUE", help="More to say about it.")
def main(network: Path, dest: Path, notes: tuple[str, ...]) -> None:
    """Store a network in float16 with its provenance: the run's, its metrics, and notes."""
    from training.files.publish import publish

    if not all("=" in note for note in notes):
        raise UserError("write notes as --note KEY=VALUE")
    pairs = (note.split("=", 1) for note in notes)
    provenance = publish(network, dest, dict((key, value) for key, value in pairs))
    click.echo(f"{dest}: {dest.stat().st_size / 1e6:.2f} MB")
    click.echo(json.dumps(provenance, indent=1))
