"""Metrics of a network file, told on stdout and in its run folder."""

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from dnnlib import UserError, out_of_memory
from metrics.context import Context
from metrics.registry import compute
from metrics.result import MetricResult
from metrics.runner import Runner
from torch_utils import distributed
from torch_utils.devices import select_device
from training.config import DataConfig
from training.evaluation.networks import open_evaluation_data
from training.files.network_file import find_network, load_network


@dataclass(frozen=True)
class Measurement:
    """What to measure.

    Attributes:
        names: of metrics.
        network: network file, or a run folder.
        data: path of the photographs; None: those that the network was trained on.
        mirror: whether mirrored copies count, except for …_full; None: as in training.
        count: of samples; None leaves it to each metric.
        detector: see `metrics.detectors.load_detector`.
        device: 'auto', 'cpu' or 'cuda'.
        verbose: whether to show progress bars.
    """

    names: tuple[str, ...]
    network: Path
    data: str | None
    mirror: bool | None
    count: int | None
    detector: str
    device: str
    verbose: bool


def measure(wanted: Measurement) -> None:
    """Measure and tell, on stdout and in the run folder. Called in every process.

    Raises:
        UserError: for a bad network or data; at the end, if any metric failed.
    """
    path, failures = find_network(wanted.network), []
    context = open_context(path, wanted)
    for name in wanted.names:
        try:
            result = compute(name, context)
        except Exception as error:
            reason = out_of_memory(error) or error
            if not isinstance(reason, UserError):
                raise
            failures.append(f"{name}: {reason}")
        else:
            if distributed.rank() == 0:
                _tell(result, path)
    if failures:
        raise UserError("; ".join(failures))


def open_context(path: Path, wanted: Measurement) -> Context:
    """The network in a file, and the photographs.

    Raises:
        UserError: where either cannot be read.
    """
    device = select_device(wanted.device)
    network = load_network(path, device)
    config = _data_config(path, network.config.data, wanted)
    data = open_evaluation_data(config, network.config.run.seed)
    networks, runner = (network.generator, network.discriminator), Runner(device, wanted.verbose)
    return data.context(*networks, runner, wanted.detector, wanted.count)


def _data_config(path: Path, trained_on: DataConfig, wanted: Measurement) -> DataConfig:
    changes = {"path": wanted.data, "mirror": wanted.mirror}
    changed = trained_on.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if changed.path is None:
        raise UserError(f"{path} does not say what it was trained on: give --data")
    return changed


def _tell(result: MetricResult, network: Path) -> None:
    """On stdout, and in the run folder if it is one; what cannot be written costs a warning."""
    click.echo(result.json_line(network.name))
    folder = network.parent
    try:
        if (folder / "config.json").is_file():
            result.append_to(folder, network.name)
    except OSError as error:
        reason = error.strerror or error
        print(f"WARNING: no {result.name} in {folder} ({reason})", file=sys.stderr)
