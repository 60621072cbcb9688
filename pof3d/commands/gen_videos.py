"""Turn the objects of a trained network before the camera, or change one into the next."""

from pathlib import Path
from typing import Any

import click

from dnnlib import SeedList
from pof3d.commands import options
from pof3d.commands.eg3d_options import VIDEOS, HintingCommand


class Grid(click.ParamType):
    """'4x2' -> (4, 2), columns and rows."""

    name = "WxH"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Parse a grid."""
        columns, separator, rows = value.replace(",", "x").partition("x")
        if not (columns.isdecimal() and rows.isdecimal() and int(columns) and int(rows)):
            self.fail(f"'{value}' is no grid; write 4x2 for 4 columns and 2 rows", param, ctx)
        return int(columns), int(rows)


@click.command(
    cls=HintingCommand,
    elsewhere=VIDEOS,
    memory_hint="a smaller --render-size or fewer --seeds",
    context_settings={"show_default": True},
)
@options.network
@click.option("--dest", type=click.Path(path_type=Path), help=".gif, .mp4 or .webp file.")
@click.option(
    "--outdir",
    type=click.Path(path_type=Path),
    help="In place of --dest: a folder for seed0000.mp4 and so on, or interpolation.mp4.",
)
@click.option("--seeds", type=SeedList(), default="0-7", help="List and ranges, as 0-3,7.")
@options.latent
@options.truncation(0.7)
@options.trunc_cutoff
@options.fov_deg
@click.option(
    "--frames", type=click.IntRange(min=2), show_default="48", help="Of the camera's round."
)
@click.option("--fps", type=click.IntRange(1, 60), default=16, help="Frames per second.")
@click.option(
    "--trajectory",
    type=click.Choice(["swing", "turntable", "spiral"]),
    show_default="swing; turntable with --yaw 180",
    help="Swing to the sides and back; turn all the way around; turn twice, rising and sinking.",
)
@click.option("--yaw", type=click.FloatRange(0, 180), default=35.0, help="How far, in degrees.")
@click.option(
    "--pitch",
    type=click.FloatRange(0, 60),
    default=10.0,
    help="Likewise, upward; of a turntable, the height of the camera.",
)
@click.option(
    "--image-mode",
    type=click.Choice(["image", "raw", "depth", "normals", "opacity"]),
    default="image",
    help="What is shown; raw: before super-resolution.",
)
@click.option("--grid", type=Grid(), show_default="near a square", help="Columns and rows.")
@click.option("--interpolate", is_flag=True, help="Change each seed's object into the next one's.")
@click.option(
    "--num-keyframes",
    type=click.IntRange(min=2),
    show_default="as many as --seeds give each tile",
    help="Objects that a tile goes through with --interpolate.",
)
@click.option(
    "--w-frames",
    type=click.IntRange(min=1),
    show_default="24",
    help="Frames from one object to the next.",
)
@click.option("--mesh", is_flag=True, help="Show the shaded surface beside each picture.")
@click.option(
    "--shape-res", type=click.IntRange(2, 1024), default=128, help="Grid points for --mesh."
)
@options.render_size
@click.option("--enlarge", type=click.IntRange(1, 16), default=1, help="Integer upscaling factor.")
@options.device
@options.precision
def main(network: Path, device: str, precision: str, **chosen: Any) -> None:
    """Turn the objects of a trained network before the camera, or change one into the next."""
    from torch_utils.devices import select_device
    from training.files.network_file import load_network
    from training.outputs.video_files import VideoOptions, write_videos

    video = VideoOptions(**chosen)
    generator = load_network(network, select_device(device), precision).generator
    for line in write_videos(generator, video):
        click.echo(line)
