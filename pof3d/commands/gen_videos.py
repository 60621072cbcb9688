"""Turn the objects of a trained network before the camera: a GIF or an MP4, a tile per seed."""

from collections.abc import Sequence
from pathlib import Path

import click

from dnnlib import SeedList
from pof3d.commands import options
from pof3d.commands.eg3d_options import VIDEOS, HintingCommand


@click.command(
    cls=HintingCommand,
    elsewhere=VIDEOS,
    memory_hint="a smaller --render-size or fewer --seeds",
    context_settings={"show_default": True},
)
@options.network
@click.option("--dest", type=click.Path(path_type=Path), required=True, help=".gif or .mp4 file.")
@click.option("--seeds", type=SeedList(), default="0-7", help="List and ranges, as 0-3,7.")
@options.truncation(0.7)
@options.trunc_cutoff
@options.fov_deg
@click.option("--frames", type=click.IntRange(min=2), default=48, help="Of one round.")
@click.option("--fps", type=click.IntRange(1, 60), default=16, help="Frames per second.")
@click.option(
    "--trajectory",
    type=click.Choice(["swing", "turntable"]),
    show_default="swing; turntable with --yaw 180",
    help="Swing to the sides and back, or turn all the way around.",
)
@click.option("--yaw", type=click.FloatRange(0, 180), default=35.0, help="How far, in degrees.")
@click.option(
    "--pitch",
    type=click.FloatRange(0, 60),
    default=10.0,
    help="Likewise, upward; of a turntable, the height of the camera.",
)
@options.render_size
@click.option("--enlarge", type=click.IntRange(1, 16), default=1, help="Integer upscaling factor.")
@options.device
def main(
    network: Path,
    dest: Path,
    seeds: Sequence[int],
    trunc: float,
    trunc_cutoff: int,
    fov_deg: float | None,
    frames: int,
    fps: int,
    trajectory: str | None,
    yaw: float,
    pitch: float,
    render_size: int | None,
    enlarge: int,
    device: str,
) -> None:
    """Turn the objects of a trained network before the camera."""
    from torch_utils.devices import select_device
    from training.files.network_file import load_network
    from training.outputs import videos
    from training.outputs.objects import Objects

    videos.check_video(dest)
    generator = load_network(network, select_device(device)).generator
    videos.check_frames(generator, len(seeds), render_size, enlarge)
    objects = Objects.from_seeds(generator, seeds, trunc, trunc_cutoff)
    path = videos.TRAJECTORIES[trajectory or ("turntable" if yaw == 180 else "swing")]
    directions = path(frames, yaw, pitch)
    pictures = videos.orbit_frames(objects, directions, fov_deg, render_size, enlarge)
    videos.save_video(dest, pictures, frames, fps)
    click.echo(f"{dest}: {len(seeds)} objects, {frames} frames")


if __name__ == "__main__":
    main()
