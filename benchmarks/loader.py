"""Images per second of the training loader alone, from zips and folders.

    python -m benchmarks.loader [--resolution 256] [--workers 0,1,2] [--json FILE]

Each turn opens a loader (`training.data.loader.training_batches`), lets it come to speed, and takes
its time; cases take turns, so that what else the machine does befalls all alike. Medians, and
ratios to the zip without workers. Images have the spectrum of photographs, are written as
dataset_tool.py writes them, and lie in the page cache.

The first two rates are per second of processor time, which a busy machine hardly changes: Pillow's
decoding alone, from memory, which is the bound; and the whole loader in one thread. The latter
times the cores that workers have to themselves is where loading saturates; the other rates, by the
clock, show how near to that several threads come.

The last column is the number of workers that each of `--gpus` training processes needs, at
`--rate` images per second and GPU. That rate is an assumption, to be replaced by what a step takes
on the GPU at hand (benchmarks/step.py); it also presumes a core for each worker.
"""

import contextlib
import functools
import io
import json
import math
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from PIL import Image

from dnnlib import Command
from training.data.archive import DatasetArchive
from training.data.dataset import ImageDataset
from training.data.loader import BATCHES_AHEAD, training_batches
from training.data.writer import dataset_writer, png_bytes

BATCH = 32


class Case(NamedTuple):
    """A loader. workers: threads; 0 loads in the caller's."""

    source: str
    workers: int


def photograph(resolution: int, rng: np.random.Generator) -> Image.Image:
    """Noise whose amplitude falls as 1 / frequency^1.4, its colors correlated: about as hard to
    compress, hence to decode, as a photograph (Field 1987: natural images have about 1 / f)."""
    y, x = np.fft.fftfreq(resolution), np.fft.rfftfreq(resolution)
    amplitude = np.hypot(y[:, None], x)
    amplitude[0, 0] = np.inf
    phases = np.exp(2j * np.pi * rng.random((4, *amplitude.shape)))
    planes = np.fft.irfft2(phases * amplitude**-1.4, s=(resolution, resolution))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    colors = 128 + 50 * planes[0] + 10 * planes[1:]
    return Image.fromarray(colors.transpose(1, 2, 0).clip(0, 255).astype(np.uint8))


def make_data(folder: Path, resolution: int, count: int) -> dict[str, Path]:
    """The same PNGs as a zip and as a folder."""
    rng = np.random.default_rng(0)
    paths = {"zip": folder / f"{resolution}.zip", "folder": folder / str(resolution)}
    with dataset_writer(paths["zip"]) as writer:
        for _ in range(count):
            writer.add_image(png_bytes(photograph(resolution, rng)))
    with zipfile.ZipFile(paths["zip"]) as archive:
        archive.extractall(paths["folder"])
    return paths


def loading_rate(
    case: Case, path: Path, count: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Images per second over `count` batches, once workers have started and queues are drained."""
    batches = training_batches(ImageDataset(path), BATCH, seed=0, workers=case.workers)
    with contextlib.closing(batches):
        for _ in range(BATCHES_AHEAD * case.workers + 1):
            next(batches)
        start = clock()
        for _ in range(count):
            next(batches)
        return count * BATCH / (clock() - start)


def decoding_rate(files: list[bytes]) -> float:
    """PNGs per second of processor time."""
    start = time.process_time()
    for data in files:
        Image.open(io.BytesIO(data)).load()
    return len(files) / (time.process_time() - start)


def measure(
    folder: Path, resolution: int, workers: list[int], images: int, repeats: int
) -> dict[str, object]:
    """Median rates of all cases at one resolution, taken in alternation."""
    paths = make_data(folder, resolution, images)
    archive = DatasetArchive(paths["zip"])
    files = [archive.read(name) for name in archive.image_names()]
    count = math.ceil(images / BATCH)
    alone = functools.partial(loading_rate, Case("zip", 0), paths["zip"], count, time.process_time)
    turns: dict[Case | str, Callable[[], float]] = {
        "decode": lambda: decoding_rate(files),
        "load": alone,
    }
    cases = [Case(source, threads) for source in paths for threads in workers]
    for case in cases:
        turns[case] = functools.partial(loading_rate, case, paths[case.source], count)
    rates: dict[Case | str, list[float]] = {name: [] for name in turns}
    for repeat in range(repeats + 1):
        for name, turn in turns.items():
            rate = turn()
            if repeat > 0:  # the first warms up
                rates[name].append(rate)
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "resolution": resolution,
        "kilobytes": statistics.mean(map(len, files)) / 1000,
        "decode": median["decode"],
        "load": median["load"],
        "rates": [{**case._asdict(), "rate": median[case]} for case in cases],
    }


def table_row(row: dict, gpus: int, rate: float) -> list[str]:
    first = row["rates"][0]["rate"]
    rates = [f"{r['rate']:.0f} ({r['rate'] / first:.2f}x)" for r in row["rates"]]
    needed = math.ceil(rate / row["load"])
    return [
        f"{row['resolution']}",
        f"{row['kilobytes']:.0f}",
        f"{row['decode']:.0f}",
        f"{row['load']:.0f}",
        *rates,
        f"{needed} ({needed * gpus} in all)",
    ]


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value} is not a list of whole numbers like 1,2") from None


@click.command(cls=Command)
@click.option("--resolution", default="64,128,256,512", callback=_numbers, show_default=True)
@click.option("--workers", default="0,1,2", callback=_numbers, show_default=True)
@click.option("--images", default=256, type=click.IntRange(1), show_default=True, help="per turn")
@click.option("--repeats", default=5, type=click.IntRange(1), show_default=True)
@click.option("--gpus", default=8, type=click.IntRange(1), show_default=True)
@click.option(
    "--rate", default=100.0, show_default=True, help="images per second and GPU, an assumption"
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False), help="write the numbers there"
)
def main(
    resolution: list[int],
    workers: list[int],
    images: int,
    repeats: int,
    gpus: int,
    rate: float,
    json_file: str | None,
) -> None:
    """Time the training loader, on the CPU."""
    torch.set_num_threads(1)  # as in a worker
    click.echo(f"{os.cpu_count()} cores; images per second, batches of {BATCH}")
    cases = [f"{source}, {count} workers" for source in ("zip", "folder") for count in workers]
    header = ["px", "kB a PNG", "decoding, CPU", "loading, CPU", *cases]
    header.append(f"workers for each of {gpus} GPUs at {rate:g} img/s")
    click.echo(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in resolution:
            rows.append(measure(Path(folder), size, workers, images, repeats))
            click.echo(f"| {' | '.join(table_row(rows[-1], gpus, rate))} |")
    if json_file:
        numbers = {"cores": os.cpu_count(), "batch": BATCH, "gpus": gpus, "rate_per_gpu": rate}
        Path(json_file).write_text(json.dumps({**numbers, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
