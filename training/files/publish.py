"""Make a network file fit to be published: half the size, with its provenance and metrics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dnnlib import check_destination, write_destination
from training.files.network_file import find_network, load_network, save_network


def publish(network: Path, dest: Path, notes: Mapping[str, str]) -> dict[str, Any]:
    """Store a network in float16 with its provenance: the run's, its metrics, and notes.

    The path of the data set, which means nothing on other machines, is left out.

    Args:
        network: network file or run folder.
        dest: file to write.
        notes: further entries of the provenance.

    Returns:
        The provenance that the new file holds.

    Raises:
        UserError: where a file cannot be read or written.
    """
    check_destination(dest)
    network = find_network(network)
    loaded = load_network(network)
    data = loaded.config.data.model_copy(update={"path": None})
    loaded.generator.config = loaded.config.model_copy(update={"data": data})
    provenance = loaded.provenance | dict(notes)
    provenance["metrics"] = recorded_metrics(network)
    with write_destination(dest) as temporary:
        save_network(
            *(temporary, loaded.generator, loaded.discriminator, provenance), dtype=torch.float16
        )
    return provenance


def recorded_metrics(network: Path) -> dict[str, float]:
    """Metrics of a network file from its run folder's metric-*.jsonl; the newest values count."""
    results: dict[str, float] = {}
    for path in sorted(network.parent.glob("metric-*.jsonl")):
        for record in map(json.loads, path.read_text().splitlines()):
            if record["snapshot_pkl"] == network.name:
                results |= record["results"]
    return results
