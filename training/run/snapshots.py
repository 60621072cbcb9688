"""The pictures of a snapshot: what a run looks like at one moment of its training."""

import torch
from PIL import Image
from torch import Tensor

from training.networks.discriminator import Discriminator
from training.networks.generator import Generator, View
from training.outputs.figures import depth_colors, normal_colors, pose_plot, tile
from training.outputs.objects import Objects, latents_of_seeds, own_pose

TURNS = (-40, -20, 0, 20, 40)  # yaws of the objects that a snapshot turns, degrees
TURNED_OBJECTS = 8
AT_ONCE = 4  # objects or photographs; bounds memory
POSES_DRAWN = 1000  # of the generator's distribution, for the plot


@torch.no_grad()
def snapshot_pictures(
    generator: Generator,
    discriminator: Discriminator,
    z: Tensor,
    intrinsics: Tensor | None,
    real_images: Tensor,
    resolution: int | None = None,
    truncation: float = 1,
) -> dict[str, Image.Image]:
    """Pictures by name: fakes, depth, normals, yaws, poses, and raw where there is one.

    Neither the networks nor any global random state is changed.

    Args:
        generator: usually the averaged one.
        discriminator: whose estimates of the photographs' poses are plotted.
        z: [N, z_dim], one per object.
        intrinsics: [N, 3, 3]; None: the preset's.
        real_images: photographs [M, 3, R, R] in [-1, 1].
        resolution: pixels a side of the renderings; None: as trained.
        truncation: psi of the objects, not of their backgrounds, as in training.
    """
    if intrinsics is None:
        intrinsics = generator.intrinsics.expand(len(z), 3, 3)
    own, turned = _views(generator, z, intrinsics, resolution, truncation)
    images = {
        "fakes": own.image,
        "depth": depth_colors(own.depth, own.opacity, generator.config),
        "normals": normal_colors(own.depth, own.opacity, intrinsics.to(own.depth)),
    }
    if generator.superresolution is not None:
        images["raw"] = own.raw
    pictures = {name: tile(each) for name, each in images.items()}
    poses = _generated_poses(generator), _estimated_poses(discriminator, real_images, generator)
    return pictures | {
        "yaws": tile(turned, columns=len(TURNS)),
        "poses": pose_plot(*map(generator.degrees_from_pose, poses)),
    }


def _views(
    generator: Generator, z: Tensor, intrinsics: Tensor, resolution: int | None, psi: float
) -> tuple[View, Tensor]:
    """All objects from their own poses; images of the first few from TURNS, a row for each."""
    own: list[View] = []
    turned: list[Tensor] = []
    directions = torch.tensor([[turn, 0.0] for turn in TURNS], device=z.device)
    turns = generator.pose_from_degrees(directions).split(1)
    for some_z, lens in zip(z.split(AT_ONCE), intrinsics.split(AT_ONCE), strict=True):
        objects = Objects.from_latents(generator, some_z, psi, generator.num_object_ws)
        own.append(objects.own_view(lens, resolution))
        if len(turned) * AT_ONCE < TURNED_OBJECTS:
            images = [objects.render(turn, lens, resolution).image for turn in turns]
            turned.append(torch.cat(images, dim=1))
    together = View(*(torch.cat(parts).cpu() for parts in zip(*own, strict=True)))
    return together, torch.cat(turned)[:TURNED_OBJECTS].flatten(0, 1).cpu()


def _generated_poses(generator: Generator) -> Tensor:
    """[POSES_DRAWN, 2]: poses of the first seeds."""
    z = latents_of_seeds(range(POSES_DRAWN), generator.mapping.z_dim).to(generator.intrinsics)
    return own_pose(generator, generator.latent(z))


def _estimated_poses(discriminator: Discriminator, images: Tensor, generator: Generator) -> Tensor:
    size = generator.raw_resolution
    return torch.cat([discriminator.estimate_pose(part, size) for part in images.split(AT_ONCE)])
