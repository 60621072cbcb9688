"""Turn the objects of a trained network before the camera: a GIF or an MP4, a tile per seed."""

import math
from pathlib import Path

import click
import imageio.v3 as imageio
import numpy as np
import torch
from tqdm import tqdm

from dnnlib import Command, SeedList, UserError, atomic_write, finite
from training.cameras import pose_from_degrees
from training.files.network_file import load_network
from training.outputs.figures import tile
from training.outputs.objects import objects_of_seeds

FORMATS = (".gif", ".mp4")


def orbit_directions(frames: int, yaw: float, pitch: float) -> torch.Tensor:
    """(yaw, pitch) [frames, 2] in degrees: one round of an ellipse with these half axes."""
    angle = torch.arange(frames) * (2 * math.pi / frames)
    return torch.stack([yaw * angle.sin(), pitch * angle.cos()], dim=1)


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--network", metavar="FILE", required=True, help="Network file.")
@click.option("--dest", type=click.Path(path_type=Path), required=True, help=".gif or .mp4 file.")
@click.option("--seeds", type=SeedList(), default="0-7", help="List and ranges, as 0-3,7.")
@click.option("--trunc", type=float, default=0.7, callback=finite, help="Truncation.")
@click.option("--frames", type=click.IntRange(min=2), default=48, help="Of one round.")
@click.option("--fps", type=click.IntRange(1, 60), default=16, help="Frames per second.")
@click.option("--yaw", type=click.FloatRange(0, 180), default=35.0, help="How far, in degrees.")
@click.option("--pitch", type=click.FloatRange(0, 60), default=10.0, help="Likewise, upward.")
@click.option("--enlarge", type=click.IntRange(1, 16), default=1, help="Pixels per pixel.")
@torch.no_grad()
def main(
    network: str,
    dest: Path,
    seeds: list[int],
    trunc: float,
    frames: int,
    fps: int,
    yaw: float,
    pitch: float,
    enlarge: int,
) -> None:
    """Turn the objects of a trained network before the camera."""
    if dest.suffix.lower() not in FORMATS:
        raise UserError(f"--dest {dest}: the name must end in {' or '.join(FORMATS)}")
    if not dest.parent.is_dir():
        raise UserError(f"--dest {dest}: there is no folder {dest.parent}")
    generator = load_network(network, "cuda" if torch.cuda.is_available() else "cpu").generator
    objects = objects_of_seeds(generator, seeds, trunc, cutoff=None)
    directions = orbit_directions(frames, yaw, pitch)
    poses = pose_from_degrees(directions, generator.config.camera.mean_h).to(objects.w)
    pictures = []
    for pose in tqdm(poses, desc="orbit", unit="frame", disable=None):
        cam2world = generator.cam2world(pose[None]).expand(len(seeds), 1, 4, 4)
        image = generator.render(objects.planes, objects.w, cam2world).select(0).image.cpu()
        image = image.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
        pictures.append(np.asarray(tile(image)))
    try:
        with atomic_write(dest) as temporary:
            temporary.write_bytes(_encoded(pictures, dest.suffix.lower(), fps))
    except OSError as error:
        raise UserError(f"cannot write {dest}: {error.strerror or error}") from error
    click.echo(f"{dest}: {len(seeds)} objects, {frames} frames")


def _encoded(pictures: list[np.ndarray], extension: str, fps: int) -> bytes:
    if extension == ".gif":
        options = {"duration": 1000 / fps, "loop": 0}  # milliseconds, for ever
    else:
        options = {"fps": fps, "macro_block_size": 2}  # a larger one would change the size
    return imageio.imwrite("<bytes>", pictures, extension=extension, **options)


if __name__ == "__main__":
    main()
