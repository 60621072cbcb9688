"""Measure a trained network. docs/metrics.md defines the numbers.

A JSON line per metric goes to stdout and, where the network lies in a run folder, to that folder's
metric-NAME.jsonl; all else goes to stderr.
"""

from pathlib import Path

import click

from pof3d.commands import options
from pof3d.commands.eg3d_options import METRICS, HintingCommand


@click.command(
    cls=HintingCommand,
    elsewhere=METRICS,
    memory_hint="a lower --num-gen or --device cpu",
)
@click.option(
    "--metrics",
    metavar="NAMES",
    default="fid50k_full",
    show_default=True,
    help="Comma-separated, or none: fid50k_full, fid50k, kid50k_full, pr50k3_full, is50k, "
    "fd50k_full-effnet (other numbers of samples go too: fid5k_full), pose_error, "
    "pose_distribution, pose_flip_consistency, view_consistency, relief, depth_error, "
    "identity_consistency.",
)
@options.network
@click.option("--data", metavar="ZIP|DIR", help="Photographs.  [those it was trained on]")
@click.option(
    "--mirror",
    type=bool,
    help="Also use mirrored copies, except for …_full.  [as in training]",
)
@click.option("--num-gen", type=click.IntRange(min=2), help="Samples.  [each metric's own number]")
@click.option(
    "--detector",
    default="inception",
    show_default=True,
    metavar="NAME|FILE",
    help="inception (downloaded once), efficientnet-lite0, or a TorchScript file.",
)
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes, one device each.",
)
@options.device
@click.option("--verbose", type=bool, default=True, show_default=True, help="Progress bars.")
def main(
    metrics: str,
    network: Path,
    data: str | None,
    mirror: bool | None,
    num_gen: int | None,
    detector: str,
    gpus: int,
    device: str,
    verbose: bool,
) -> None:
    """Measure images, poses and shapes of a trained network."""
    from metrics.registry import parse_names
    from torch_utils import distributed
    from training.evaluation.measuring import Measurement, measure

    kind = distributed.check_gpus(gpus, device)
    names = parse_names(metrics)
    wanted = Measurement(names, network, data, mirror, num_gen, detector, kind, verbose)
    distributed.launch(measure, gpus, kind, wanted)
