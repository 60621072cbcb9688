"""Measure a trained network. `python calc_metrics.py --help`; docs/metrics.md defines the numbers.

A JSON line per metric goes to stdout and, where the network lies in a run folder, to that folder's
metric-NAME.jsonl; all else goes to stderr.
"""

from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from dnnlib import Command, UserError
from metrics.context import Context
from metrics.detectors import EFFICIENTNET, INCEPTION
from metrics.registry import NAMES, check_names, compute
from metrics.runner import Runner
from torch_utils import distributed
from training.config import DataConfig
from training.evaluation.networks import EvaluatedNetwork, open_evaluation_data
from training.files.network_file import load_network


class Options(NamedTuple):
    """The command line; see the help of `main`."""

    metrics: str
    network: Path
    data: str | None
    mirror: bool | None
    num_gen: int | None
    detector: str
    gpus: int
    device: str
    verbose: bool


@click.command(cls=Command)
@click.option(
    "--metrics",
    metavar="NAMES",
    default="fid50k_full",
    show_default=True,
    help=f"Comma-separated, of {', '.join(NAMES)}; other numbers of samples go too: fid5k_full.",
)
@click.option("--network", type=click.Path(path_type=Path), required=True, help="Network file.")
@click.option("--data", metavar="ZIP|DIR", help="ImageSet.  [those it was trained on]")
@click.option("--mirror", type=bool, help="Flip them too, but for …_full.  [as in training]")
@click.option("--num-gen", type=click.IntRange(min=2), help="Samples.  [each metric's own number]")
@click.option(
    "--detector",
    default=INCEPTION,
    show_default=True,
    metavar="NAME|FILE",
    help=f"{INCEPTION} (downloaded once), {EFFICIENTNET}, or a TorchScript file.",
)
@click.option("--gpus", type=click.IntRange(min=1), default=1, help="Processes.  [1]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--verbose", type=bool, default=True, show_default=True, help="Progress bars.")
def main(**options: Any) -> None:
    """Measure images, poses and shapes of a trained network."""
    options = Options(**options)
    distributed.launch(measure, options.gpus, _kind(options), options)


def measure(options: Options) -> None:
    """Called in every process. Raises UserError at the end if any metric failed."""
    names = [name.strip() for name in options.metrics.split(",") if name.strip()]
    check_names(names)
    device = torch.device(_kind(options))
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    network = load_network(options.network, device)
    data = open_evaluation_data(_data_config(network.config.data, options), network.config.run.seed)
    context = Context(
        EvaluatedNetwork(network.generator, network.discriminator, data.labels),
        data.photographs,
        data.shown,
        data.true_directions,
        Runner(device, options.verbose),
        options.detector,
        options.num_gen,
    )
    failures = []
    for name in names:
        try:
            result = compute(name, context)
        except UserError as error:
            failures.append(f"{name}: {error}")
            continue
        if distributed.rank() == 0:
            click.echo(result.json_line(options.network.name))
            if (options.network.parent / "config.json").is_file():
                result.append_to(options.network.parent, options.network.name)
    if failures:
        raise UserError("; ".join(failures))


def _kind(options: Options) -> str:
    available = torch.cuda.device_count()
    if options.device == "cuda" and not available:
        raise UserError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    kind = "cuda" if options.device != "cpu" and available else "cpu"
    if kind == "cuda" and options.gpus > available:
        raise UserError(f"--gpus {options.gpus}: only {available} CUDA devices are here")
    return kind


def _data_config(trained_on: DataConfig, options: Options) -> DataConfig:
    changes = {"path": options.data, "mirror": options.mirror}
    changed = trained_on.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if changed.path is None:
        raise UserError(f"{options.network} does not say what it was trained on: give --data")
    return changed


if __name__ == "__main__":
    main()
