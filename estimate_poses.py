"""Label photographs with the cameras that a trained discriminator sees in them.

The result is a dataset.json of EG3D's format, so that methods which want posed photographs can be
trained on unposed ones. Its cameras belong to the network's own world, which may be a rotated or
mirrored copy of the true one; among themselves they agree.
"""

import json
from pathlib import Path

import click
import torch
from torch import Tensor

from dnnlib import Command, UserError, atomic_write
from metrics.runner import Runner
from training.checkpoint import load_network
from training.dataset import DatasetArchive, ImageDataset
from training.evaluation import NetworkSubject


@click.command(cls=Command)
@click.option("--network", metavar="FILE", required=True, help="Network file.")
@click.option("--data", metavar="ZIP|DIR", required=True, help="Square photographs.")
@click.option(
    "--dest",
    type=click.Path(path_type=Path),
    required=True,
    help="The dataset.json to write; it must not exist yet.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
def main(network: str, data: str, dest: Path, device: str) -> None:
    """Write the camera of every photograph: 16 numbers of cam2world, 9 of the intrinsics."""
    if dest.exists():
        raise UserError(f"{dest} exists: its labels may be true ones; choose another --dest")
    if not dest.parent.is_dir():
        raise UserError(f"there is no folder {dest.parent} for --dest {dest.name}")
    labels = estimate_labels(network, data, _device(device))
    with atomic_write(dest) as temporary:
        temporary.write_text(json.dumps({"labels": list(labels.items())}))
    click.echo(f"{len(labels)} cameras in {dest}")


def estimate_labels(network: str, data: str, device: torch.device) -> dict[str, list[float]]:
    """25 numbers for each image's name.

    A discriminator compares the images of a batch, so neighbours in the order of names have a small
    influence on each other's cameras.
    """
    generator, discriminator, config, _ = load_network(network, device)
    subject = NetworkSubject(generator, discriminator, None)
    images = ImageDataset(data, config.data.resolution, config.data.crop)
    names = DatasetArchive(data).image_names()
    _refuse_oblong(data, names)
    if config.camera.intrinsics == "labels" and images.all_intrinsics is not None:
        intrinsics = images.all_intrinsics
    else:
        intrinsics = generator.intrinsics.cpu().expand(len(names), 3, 3)

    def see(indices: range) -> Tensor:
        return subject.see_cameras(torch.stack([images[i] for i in indices])).flatten(1)

    cameras = Runner(device, verbose=True).map(see, len(names), "cameras")
    rows = torch.cat([cameras, intrinsics.flatten(1)], dim=1).tolist()
    return dict(zip(names, rows, strict=True))


def _refuse_oblong(data: str, names: list[str]) -> None:
    """The format means the whole image, of which the network saw the middle or a padded copy."""
    archive = DatasetArchive(data)
    for name in names:
        archive.read_image(name, labelled=True)


def _device(choice: str) -> torch.device:
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise UserError("--device cuda: there is no CUDA device; use --device cpu")
    return torch.device("cuda" if choice != "cpu" and available else "cpu")


if __name__ == "__main__":
    main()
