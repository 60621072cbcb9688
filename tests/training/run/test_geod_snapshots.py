"""What snapshots show of an inverse renderer."""

import torch

from tests.helpers import small_generator
from training.networks.inverse_renderer import InverseRenderer
from training.run.geod_snapshots import geod_pictures


def test_pictures_of_generated_images_and_of_photographs():
    torch.manual_seed(0)
    network, generator = InverseRenderer(width=16).eval(), small_generator().eval()
    z = torch.randn(6, generator.config.generator.z_dim)
    pictures = geod_pictures(network, generator, z, None, torch.rand(3, 3, 128, 128) * 2 - 1)
    assert {name: picture.size for name, picture in pictures.items()} == {
        "geod_normals": (3 * 64, 2 * 64),
        "normals_ir": (3 * 64, 2 * 64),
        "normals_ir_real": (2 * 64, 2 * 64),
        "turned_real": (5 * 64, 3 * 64),
    }
    assert len({picture.tobytes() for picture in pictures.values()}) == 4
