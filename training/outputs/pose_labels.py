"""Camera labels of photographs, as a trained discriminator estimates them.

They are of EG3D's format, so that methods which want posed photographs can be trained on unposed
ones. Its cameras belong to the network's own world, which may be a rotated or mirrored copy of the
true one; among themselves they agree.
"""

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from metrics.runner import Runner
from training.data.archive import DatasetArchive
from training.data.dataset import ImageDataset
from training.data.geometry import to_square
from training.files.network import Network


def estimate_labels(network: Network, data: str) -> dict[str, list[float]]:
    """Estimate the camera of every image of a data set.

    A discriminator compares the images of a batch, so neighbors in the order of names have a small
    influence on each other's cameras.

    Args:
        network: with a discriminator.
        data: a zip or a folder of square images.

    Returns:
        By image name 25 numbers: cam2world (16), intrinsics (9). Intrinsics are those of the
        data's labels where training used them.

    Raises:
        UserError: for bad data, or a network without a discriminator.
    """
    generator, resolution = network.generator, network.config.data.resolution
    archive = DatasetArchive(data)
    names = archive.image_names()

    def estimate(indices: range) -> Tensor:
        images = torch.stack([_square_image(archive, names[i], resolution) for i in indices])
        return generator.cam2world(network.estimate_pose(images)).flatten(1)

    cameras = Runner(generator.intrinsics.device, verbose=True).map(estimate, len(names), "cameras")
    intrinsics = generator.intrinsics.cpu().expand(len(names), 3, 3)
    if network.config.camera.intrinsics == "labels":
        known = ImageDataset(data, resolution).all_intrinsics
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
