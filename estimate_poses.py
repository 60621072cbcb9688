"""Label photographs with the cameras that a trained discriminator sees in them.

The result is a dataset.json of EG3D's format, so that methods which want posed photographs can be
trained on unposed ones. Its cameras belong to the network's own world, which may be a rotated or
mirrored copy of the true one; among themselves they agree.
"""

import json
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from dnnlib import Command, UserError, atomic_write
from metrics.runner import Runner
from training.data.dataset import DatasetArchive, ImageDataset, to_square
from training.evaluation.networks import EvaluatedNetwork
from training.files.network_file import load_network


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
    """25 numbers by image name. Intrinsics are those of the data's labels where training used them.

    A discriminator compares the images of a batch, so neighbors in the order of names have a small
    influence on each other's cameras.
    """
    generator, discriminator, config, _ = load_network(network, device)
    subject = EvaluatedNetwork(generator, discriminator, None)
    archive = DatasetArchive(data)
    names = archive.image_names()

    def see(indices: range) -> Tensor:
        images = [_square_image(archive, names[i], config.data.resolution) for i in indices]
        return subject.estimate_cameras(torch.stack(images)).flatten(1)

    cameras = Runner(device, verbose=True).map(see, len(names), "cameras")
    intrinsics = generator.intrinsics.cpu().expand(len(names), 3, 3)
    if config.camera.intrinsics == "labels":
        known = ImageDataset(data, config.data.resolution).all_intrinsics
        intrinsics = intrinsics if known is None else known
    rows = torch.cat([cameras, intrinsics.flatten(1)], dim=1).tolist()
    return dict(zip(names, rows, strict=True))


def _square_image(archive: DatasetArchive, name: str, resolution: int) -> Tensor:
    """uint8 [3, R, R]. Raises UserError where a label, which means all of it, would be wrong."""
    image = archive.read_image(name)
    if image.width != image.height:
        raise UserError(
            f"image {name} is {image.width} x {image.height}: labels are for square images; "
            "`dataset_tool.py convert` makes them"
        )
    pixels = np.array(to_square(image, resolution, "center"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _device(choice: str) -> torch.device:
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise UserError("--device cuda: there is no CUDA device; use --device cpu")
    return torch.device("cuda" if choice != "cpu" and available else "cpu")


if __name__ == "__main__":
    main()
