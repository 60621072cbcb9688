"""Make a network file fit to be published: half the size, with its provenance and metrics.

python -m training.files.publish --network FILE --dest FILE [--note KEY=VALUE] …
"""

import json
from pathlib import Path

import click
import torch

from dnnlib import Command, UserError, check_destination, write_destination
from training.files.network_file import find_network, load_network, save_network


@click.command(cls=Command)
@click.option("--network", type=click.Path(path_type=Path), required=True, help="Network file.")
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--note", "notes", multiple=True, metavar="KEY=VALUE", help="More to say about it.")
def main(network: Path, dest: Path, notes: tuple[str, ...]) -> None:
    """Store a network in float16 with its provenance: the run's, its metrics, and notes.

    The path of the data set, which means nothing on other machines, is left out.
    """
    if not all("=" in note for note in notes):
        raise UserError("write notes as --note KEY=VALUE")
    check_destination(dest)
    network = find_network(network)
    loaded = load_network(network)
    data = loaded.config.data.model_copy(update={"path": None})
    loaded.generator.config = loaded.config.model_copy(update={"data": data})
    provenance = loaded.provenance | dict(note.split("=", 1) for note in notes)
    provenance["metrics"] = recorded_metrics(network)
    with write_destination(dest) as temporary:
        save_network(
            *(temporary, loaded.generator, loaded.discriminator, provenance), dtype=torch.float16
        )
    click.echo(f"{dest}: {dest.stat().st_size / 1e6:.2f} MB")
    click.echo(json.dumps(provenance, indent=1))


def recorded_metrics(network: Path) -> dict[str, float]:
    """Metrics of a network file from its run folder's metric-*.jsonl; the newest values count."""
    results: dict[str, float] = {}
    for path in sorted(network.parent.glob("metric-*.jsonl")):
        for record in map(json.loads, path.read_text().splitlines()):
            if record["snapshot_pkl"] == network.name:
                results |= record["results"]
    return results


if __name__ == "__main__":
    main()
