"""Files that show what an inverse renderer makes of photographs."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from torch_utils.images import resize, to_float
from training.data.dataset import DatasetArchive, to_square
from training.networks.image_formation import SIZE
from training.networks.inverse_renderer import InverseRenderer
from training.outputs.figures import save_image, tile
from training.outputs.geod_figures import (
    canonical_mesh,
    depth_images,
    normal_images,
    turned_images,
)
from training.outputs.mesh_files import save_mesh

TURNS = (-40, -20, 0, 20, 40)  # yaws of the objects, degrees
TRAINED_AT = 256  # pixels of the photographs that published networks were trained with


def save_shapes(network: InverseRenderer, archive: DatasetArchive, outdir: Path) -> int:
    """Write NAME.png and NAME.ply of every photograph; return their number.

    A picture shows the photograph, its depth and normals, and the object from `TURNS`. A mesh shows
    the object from the front, see `canonical_mesh`. Slashes in names become dashes.

    Raises:
        UserError: if a file is there already, two names are the same, or an image is broken.
    """
    targets = {
        name: outdir / str(Path(name).with_suffix("")).replace("/", "-")
        for name in archive.image_names()
    }
    _refuse_clashes(list(targets.values()))
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--outdir {outdir}: cannot make this folder ({error.strerror})") from error
    device = next(network.parameters()).device
    for name, target in targets.items():
        _save_shape(target, network, _photograph(archive, name).to(device))
    return len(targets)


def _refuse_clashes(targets: list[Path]) -> None:
    for target in targets:
        for path in (_beside(target, ".png"), _beside(target, ".ply")):
            if path.exists():
                raise UserError(f"{path} exists: choose another --outdir")
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise UserError(f"two photographs would be written as {twice}: rename one of them")


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _photograph(archive: DatasetArchive, name: str) -> Tensor:
    """[1, 3, 64, 64] in [-1, 1]: the middle square, brought to size as in training."""
    pixels = np.array(to_square(archive.read_image(name), TRAINED_AT, "center"))
    return resize(to_float(torch.from_numpy(pixels).permute(2, 0, 1)[None]), SIZE)


@torch.no_grad()
def _save_shape(target: Path, network: InverseRenderer, image: Tensor) -> None:
    geometry = network.geometry(image)
    row = [
        image,
        depth_images(geometry.depth[:1], network.frustum),
        normal_images(geometry.normal[:1]),
        turned_images(network, image, TURNS)[0],
    ]
    save_mesh(_beside(target, ".ply"), canonical_mesh(network, image))
    picture = tile(torch.cat(row).cpu(), columns=len(row) - 1 + len(TURNS))
    save_image(_beside(target, ".png"), picture)
