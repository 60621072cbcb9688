"""The pictures that a snapshot of a run with GeoD has besides."""

import torch
from PIL import Image
from torch import Tensor

from torch_utils.images import resize
from training.geod import normals_of_depth
from training.networks.generator import Generator
from training.networks.image_formation import SIZE
from training.networks.inverse_renderer import InverseRenderer
from training.outputs.figures import tile
from training.outputs.geod_figures import normal_images, turned_images
from training.outputs.objects import Objects
from training.run.snapshots import AT_ONCE, TURNED_OBJECTS, TURNS


@torch.no_grad()
def geod_pictures(
    network: InverseRenderer,
    generator: Generator,
    z: Tensor,
    intrinsics: Tensor | None,
    real_images: Tensor,
    truncation: float = 1,
) -> dict[str, Image.Image]:
    """Pictures by name: geod_normals, normals_ir, normals_ir_real, turned_real.

    The first two are of generated images: normals of the generator's depth as the loss takes them,
    and those that the inverse renderer finds. The last two are of photographs.

    Args:
        network: the inverse renderer.
        generator: usually the averaged one.
        z: [N, z_dim], one per object.
        intrinsics: [N, 3, 3]; None: the preset's.
        real_images: photographs [M, 3, R, R] in [-1, 1].
        truncation: psi of the objects, not of their backgrounds, as in training.
    """
    if intrinsics is None:
        intrinsics = generator.intrinsics.expand(len(z), 3, 3)
    psi, cutoff = truncation, generator.num_object_ws
    views = [
        Objects.from_latents(generator, some_z, psi, cutoff).own_view(lens)
        for some_z, lens in zip(z.split(AT_ONCE), intrinsics.split(AT_ONCE), strict=True)
    ]
    normals = {
        "geod_normals": [normals_of_depth(view.depth, network.frustum) for view in views],
        "normals_ir": [_own_normals(network, view.image) for view in views],
        "normals_ir_real": [_own_normals(network, some) for some in real_images.split(AT_ONCE)],
    }
    pictures = {name: tile(normal_images(torch.cat(each)).cpu()) for name, each in normals.items()}
    turned = turned_images(network, resize(real_images[:TURNED_OBJECTS], SIZE), TURNS)
    return pictures | {"turned_real": tile(turned.flatten(0, 1).cpu(), columns=len(TURNS))}


def _own_normals(network: InverseRenderer, image: Tensor) -> Tensor:
    """Of the objects in images [B, 3, R, R], not of their mirror images."""
    return network.geometry(resize(image, SIZE)).normal.chunk(2)[0]
