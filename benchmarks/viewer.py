"""Frames per second of the viewer while its camera moves, without a browser.

    python -m benchmarks.viewer [--network FILE] [--threads 1] [--sizes 48,64,96,128]

A camera goes round an object; each frame is rendered and encoded as the server does it. Median over
frames, by the clock and per second of processor time, which a busy machine hardly changes.
"""

import math
import statistics
import time
from pathlib import Path

import click
import imageio.v3 as imageio
import torch

from dnnlib import Command
from pof3d.viewer.rendering import Detail, FreeCamera, own_window_fov, render_frame
from training.files.network_file import load_network
from training.outputs.objects import Objects

FRAMES = 24
ASPECT = 16 / 9


@click.command(cls=Command)
@click.option("--network", type=click.Path(path_type=Path), default="models/toy.safetensors")
@click.option("--threads", type=click.IntRange(min=1), default=1)
@click.option("--sizes", default="48,64,96,128", help="Pixels a side of the rendered window.")
def main(network: Path, threads: int, sizes: str) -> None:
    """Print a line for every size."""
    torch.set_num_threads(threads)
    objects = Objects.from_seeds(load_network(network).generator, [0], truncation=0.7)
    frame_seconds(objects, 32)  # builds operations
    click.echo("size  frames/s  frames/s of processor time")
    for size in map(int, sizes.split(",")):
        clock, processor = frame_seconds(objects, size)
        click.echo(f"{size:4}  {1 / clock:8.1f}  {1 / processor:8.1f}")


def frame_seconds(objects: Objects, size: int) -> tuple[float, float]:
    """The median frame's seconds, by the clock and of the processor."""
    generator = objects.generator
    yaws = torch.linspace(-30, 30, FRAMES)
    poses = generator.pose_from_degrees(torch.stack([yaws, torch.zeros(FRAMES)], dim=1))
    times = []
    for cam2world in generator.cam2world(poses):
        start = time.perf_counter(), time.process_time()
        camera = FreeCamera(cam2world, own_window_fov(generator), ASPECT)
        frame = render_frame(objects, camera, Detail(size))
        assert frame is not None
        imageio.imwrite("<bytes>", frame.picture, extension=".jpg")
        imageio.imwrite("<bytes>", (frame.depth * 255 / frame.depth.max()).astype("uint8"),
                        extension=".png")  # fmt: skip
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    clock, processor = zip(*times, strict=True)
    return statistics.median(clock), max(statistics.median(processor), math.ulp(1))


if __name__ == "__main__":
    main()
