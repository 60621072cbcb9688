"""Photographs of toy heads, their true normals, and what inverse renderers make of them.

python docs/figures/geod.py --dest docs/images/geod.png NETWORK…

The networks are those of the table in docs/geod.md, written with --with-ir.
"""

from pathlib import Path

import click
import numpy as np
import torch

from torch_utils.images import resize, to_float
from training.data.dataset import ImageDataset
from training.data.ground_truth import load_ground_truth
from training.data.toy_set import toy_dataset_path
from training.evaluation.inverse_rendering import find_shapes, true_depth
from training.files.inverse_renderer_file import load_inverse_renderer_file
from training.networks.image_formation import SIZE, surface_normals
from training.outputs.figures import save_image, tile
from training.outputs.geod_figures import normal_images, turned_images

YAWS = (-40.0, -20.0, 0.0, 20.0, 40.0)
PHOTOGRAPHS = np.arange(4)


@click.command()
@click.argument("networks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="PNG to write.")
def main(networks: tuple[Path, ...], dest: Path) -> None:
    """A row for each photograph."""
    data = toy_dataset_path(32)
    dataset, known = ImageDataset(data, None), load_ground_truth(data)
    photographs = torch.stack([dataset[int(i)] for i in PHOTOGRAPHS])
    images = resize(to_float(photographs), SIZE)
    mask, depth = true_depth(known, PHOTOGRAPHS)
    columns = [images]
    for i, path in enumerate(networks):
        network = load_inverse_renderer_file(path)
        if i == 0:
            truth = normal_images(surface_normals(network.frustum.points(depth)))
            columns.append(torch.where(mask[:, None], truth, 1))
        columns.append(normal_images(find_shapes(network, photographs).normal))
        columns += turned_images(network, images, YAWS).unbind(1)
    save_image(dest, tile(torch.stack(columns, dim=1).flatten(0, 1), columns=len(columns)))


if __name__ == "__main__":
    main()
