"""Label photographs with the camera poses that a trained discriminator estimates from them."""

from pathlib import Path

import click

from dnnlib import UserError, check_destination, write_destination
from pof3d.commands import options
from pof3d.commands.eg3d_options import METRICS, HintingCommand


@click.command(cls=HintingCommand, elsewhere=METRICS, memory_hint="--device cpu")
@options.network
@click.option("--data", metavar="ZIP|DIR", required=True, help="Square photographs.")
@click.option(
    "--dest",
    type=click.Path(path_type=Path),
    required=True,
    help="The dataset.json to write; it must not exist yet.",
)
@options.device
def main(network: Path, data: str, dest: Path, device: str) -> None:
    """Write the camera of every photograph: 16 numbers of cam2world, 9 of the intrinsics."""
    from torch_utils.devices import select_device
    from training.data.labels import label_file
    from training.files.network_file import load_network
    from training.outputs.pose_labels import estimate_labels

    if dest.exists():
        raise UserError(f"{dest} exists: its labels may be true ones; choose another --dest")
    check_destination(dest)
    labels = estimate_labels(load_network(network, select_device(device)), data)
    with write_destination(dest) as temporary:
        temporary.write_bytes(label_file(labels.items()))
    click.echo(f"{len(labels)} cameras in {dest}")
