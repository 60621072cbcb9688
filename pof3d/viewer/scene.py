"""What a person sets in the viewer, and what is made of it: objects, photographs, downloads."""

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dnnlib import UserError
from pof3d.viewer.rendering import Frame
from training.data.geometry import to_square
from training.data.photograph import decode
from training.files.network import Network
from training.networks.generator import Generator
from training.outputs.mesh_colors import colored
from training.outputs.mesh_files import save_mesh
from training.outputs.meshes import find_surface
from training.outputs.objects import Objects, latent_of, latents_of_seeds, own_pose
from training.outputs.projection import project
from training.outputs.videos import Look, orbit_frames, save_video, turntable

PHOTOGRAPH_SIZE = 192  # pixels a side of an upload in the page
MESH_RESOLUTION = 96  # grid points a side
TURNTABLE_FRAMES, TURNTABLE_FPS, TURNTABLE_SIZE = 48, 24, 128
CAMERAS_DRAWN = 100  # of the generator's pose distribution
FRUSTUM_DEPTH = 0.06  # of a drawn camera, in radii of the sphere of cameras


@dataclass(frozen=True)
class Settings:
    """Which object is shown.

    seed: of the object. other_seed: what it is mixed with. interpolation: 0, the object, to 1, the
    other one. styles_from: the first layer whose style is the other one's; None: none is.
    photograph: a projected photograph in place of the seed.
    """

    seed: int = 0
    truncation: float = 0.7
    other_seed: int = 1
    interpolation: float = 0.0
    styles_from: int | None = None
    photograph: "Projected | None" = None


@dataclass(frozen=True, eq=False)
class Projected:
    """What shows a photograph: ws [1, num_ws, w_dim] and a pose [1, 2], of one generator.

    psnr: of the picture against the photograph, dB.
    """

    generator: Generator
    ws: Tensor
    pose: Tensor
    psnr: float


@torch.no_grad()
def mix(generator: Generator, settings: Settings) -> Objects:
    """The one object that settings describe.

    A photograph that was projected with another network counts as none.

    Raises:
        UserError: for a seed out of range.
    """
    seeds = [settings.seed, settings.other_seed]
    z = latents_of_seeds(seeds, generator.mapping.z_dim)
    latent = latent_of(generator, z, settings.truncation)
    own, other = latent.ws.split(1)
    pose = own_pose(generator, latent)[:1]
    if settings.photograph is not None and settings.photograph.generator is generator:
        own, pose = settings.photograph.ws, settings.photograph.pose
    ws = torch.lerp(own, other, settings.interpolation)
    if settings.styles_from is not None:
        ws[:, settings.styles_from :] = other[:, settings.styles_from :]
    return Objects.from_ws(generator, ws, pose)


@dataclass(frozen=True)
class Photograph:
    """An uploaded photograph, cropped.

    picture: uint8 [H, H, 3], for the page. image: uint8 [1, 3, R, R], of the size that networks
    take. pose: [1, 2] in radians, as the discriminator estimates.
    """

    picture: np.ndarray
    image: Tensor
    pose: Tensor


@torch.no_grad()
def read_photograph(network: Network, name: str, data: bytes) -> Photograph:
    """Decode an upload, crop it to a square and estimate its pose.

    Raises:
        UserError: for what is no picture, or a network without a discriminator.
    """
    try:
        image = decode(data).image
    except UserError:
        raise
    except Exception as error:  # whatever decoders raise for broken files
        raise UserError(
            f"{name} is not a picture that can be read: upload a photograph, as PNG or JPEG"
        ) from error
    square = to_square(image, network.config.data.resolution, "center")
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    pixels = pixels.to(network.generator.intrinsics.device)
    picture = np.array(to_square(image, PHOTOGRAPH_SIZE, "center"))
    return Photograph(picture, pixels, network.estimate_pose(pixels))


def project_photograph(network: Network, photograph: Photograph) -> Projected:
    """Find the object and the pose that show a photograph, from the discriminator's estimate on."""
    found = project(network.generator, network.discriminator, photograph.image)
    return Projected(network.generator, found.objects.ws, found.objects.pose, found.psnr.item())


@torch.no_grad()
def frustum_lines(generator: Generator) -> np.ndarray:
    """Cameras of the generator's pose distribution as lines, float32 [N * 8, 2, 3]."""
    z = latents_of_seeds(range(CAMERAS_DRAWN), generator.mapping.z_dim)
    cam2world = generator.cam2world(own_pose(generator, latent_of(generator, z)))
    half = 0.5 / generator.intrinsics[0, 0].item()
    corners = torch.tensor([[-half, -half, 1], [half, -half, 1], [half, half, 1], [-half, half, 1]])
    corners = corners.to(cam2world) * FRUSTUM_DEPTH * generator.config.camera.radius
    world = corners @ cam2world[:, :3, :3].mT + cam2world[:, None, :3, 3]
    edges = torch.stack([world, world.roll(1, dims=1)], dim=2)
    sides = torch.stack([cam2world[:, None, :3, 3].expand_as(world), world], dim=2)
    return torch.cat([edges, sides], dim=1).flatten(0, 1).cpu().numpy().astype(np.float32)


def picture_png(frame: Frame) -> bytes:
    """The picture of a frame as a PNG file."""
    encoded = io.BytesIO()
    Image.fromarray(frame.picture).save(encoded, format="png")
    return encoded.getvalue()


def mesh_glb(objects: Objects) -> bytes:
    """The surface of one object, colored, as a GLB file.

    Raises:
        UserError: where it has none.
    """
    generator, planes = objects.generator, objects.planes
    mesh = find_surface(generator, planes, MESH_RESOLUTION).mesh
    if not len(mesh.faces):
        raise UserError("this object has no surface: no density reaches the level of a mesh")
    return _file_bytes(".glb", lambda path: save_mesh(path, colored(generator, planes, mesh)))


def turntable_mp4(objects: Objects) -> bytes:
    """One object from all around as an MP4 file."""
    directions = turntable(TURNTABLE_FRAMES, 180, 0)
    size = None if objects.generator.superresolution is not None else TURNTABLE_SIZE
    frames = orbit_frames(objects, directions, Look(render_size=size))
    return _file_bytes(
        ".mp4", lambda path: save_video(path, frames, TURNTABLE_FRAMES, TURNTABLE_FPS)
    )


def _file_bytes(extension: str, write: Callable[[Path], None]) -> bytes:
    """What a function writes to a file of this extension."""
    with tempfile.TemporaryDirectory(prefix="pof3d-view-") as folder:
        path = Path(folder) / f"file{extension}"
        write(path)
        return path.read_bytes()
