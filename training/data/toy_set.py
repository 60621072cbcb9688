"""The toy set: photographs of procedural heads, made when needed, with the truth behind them."""

import contextlib
import fcntl
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dnnlib import cache_dir
from training.data.archive import GROUND_TRUTH
from training.data.ground_truth import GroundTruth
from training.data.processes import in_processes
from training.data.toy_heads import (
    VERSION,
    Head,
    render_head,
    sample_pose,
    toy_cameras,
    toy_intrinsics,
    turned_pose,
)
from training.data.writer import dataset_writer, png_bytes


class _Photograph(NamedTuple):
    png: bytes
    truth: GroundTruth  # of this one image: without the axis N


def _photograph(index: int, resolution: int, seed: int, turns: Sequence[int]) -> _Photograph:
    number, turn = divmod(index, len(turns))
    rng = np.random.default_rng([seed, number])
    identity = rng.integers(2**63 - 1)
    pose = turned_pose(sample_pose(rng), turns[turn])
    cam2world = toy_cameras(torch.from_numpy(pose)[None])
    view = render_head(Head.random(np.random.default_rng(identity)), cam2world, resolution)
    image = Image.fromarray(view.image[0].permute(1, 2, 0).numpy())
    return _Photograph(
        png_bytes(image),
        GroundTruth(
            pose=pose,
            depth=view.depth[0].numpy().astype(np.float16),
            identity=np.asarray(identity),
            cam2world=cam2world[0].numpy().astype(np.float32),
        ),
    )


def make_toy_dataset(
    dest: str | Path,
    count: int,
    resolution: int,
    seed: int,
    labels: bool = False,
    turns: Sequence[int] = (0,),
) -> None:
    """Write a zip of unposed images with `ground_truth.npz` beside them.

    The file depends on count, resolution, seed and turns alone, not on the number of processes.

    Args:
        dest: the zip.
        count: number of images.
        resolution: their side, in pixels.
        seed: of heads and cameras.
        labels: also tell the cameras, in a `dataset.json` that training reads.
        turns: degrees of yaw; each head is taken once for every one, from the same random camera,
            turned by it.

    Raises:
        UserError: where the zip cannot be written, or a process was killed.
    """
    names, truths = [], []
    with dataset_writer(dest) as writer:
        take = functools.partial(_photograph, resolution=resolution, seed=seed, turns=turns)
        photographs = in_processes(take, count)
        for png, truth in tqdm(photographs, "toy heads", count, unit="img", disable=None):
            names.append(writer.add_image(png))
            truths.append(truth)
        truth = GroundTruth.stack(truths)
        writer.add_file(GROUND_TRUTH, truth.to_bytes())
        if labels:
            intrinsics = toy_intrinsics().expand(len(names), 3, 3).numpy()
            writer.add_labels(names, truth.cam2world, intrinsics)


def toy_dataset_path(
    resolution: int,
    count: int = 10_000,
    seed: int = 0,
    labels: bool = False,
    turns: Sequence[int] = (0,),
) -> Path:
    """The toy set's zip in the cache, made on first use.

    Of several processes that want it, the first makes it, and the others wait. Where the file
    system has no locks each writes a file of its own, with the same bytes, and the last one stays.

    Args:
        resolution: as of `make_toy_dataset`.
        count: as there.
        seed: as there.
        labels: as there.
        turns: as there.

    Raises:
        UserError: where the cache cannot be written.
    """
    turned = "" if turns == (0,) else f"_turns{','.join(map(str, turns))}"
    name = f"toy_v{VERSION}_{resolution}px_{count}_seed{seed}{'_labels' if labels else ''}"
    path = cache_dir("datasets") / f"{name}{turned}.zip"
    if not path.exists():
        with _locked(path.parent):
            if not path.exists():
                make_toy_dataset(path, count, resolution, seed, labels=labels, turns=turns)
    return path


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
