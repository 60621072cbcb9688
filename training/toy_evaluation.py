"""What a network trained on the toy heads has learned, measured against their ground truth.

python -m training.toy_evaluation --network FILE [--data toy.zip]
"""

import json
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from torch import Tensor

from dnnlib import Command
from metrics.poses import align
from metrics.sliced_wasserstein import sliced_wasserstein

from .camera import pose_from_degrees, pose_from_direction
from .checkpoint import load_network
from .dataset import ImageDataset
from .discriminator import Discriminator
from .generator import Generator
from .pictures import TURNS
from .toy import (
    POSE_MEAN,
    RADIUS,
    Head,
    foreground_mask,
    load_ground_truth,
    render_head,
    toy_cameras,
    toy_dataset_path,
)

AT_ONCE = 16
SAMPLES_TURNED, HEADS_TURNED = 64, 256


class ToyScores(NamedTuple):
    """silhouette_iou: mean overlap of a sample's foreground with the data's mean silhouette; of the
    data itself in silhouette_iou_of_data. distance: sliced Wasserstein to the data, of the network
    and of an untrained one. yaw_correlation, pitch_correlation: of D's pose of photographs with the
    truth; a sign of -1 is a mirrored world, which nothing in unposed images rules out.
    turned_iou: of samples seen from each of TURNS with the most similar of many heads seen from
    there, means; of heads the network did not make in turned_iou_of_data.
    """

    silhouette_iou: float
    silhouette_iou_of_data: float
    distance: float
    distance_untrained: float
    yaw_correlation: float
    pitch_correlation: float
    turned_iou: tuple[float, ...]
    turned_iou_of_data: tuple[float, ...]


def evaluate(
    generator: Generator, discriminator: Discriminator, data: Path, count: int = 512
) -> ToyScores:
    """Scores of `count` samples against as many of the photographs in `data`, a toy set."""
    dataset = ImageDataset(data, generator.config.data.resolution)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:count]
    photographs = torch.stack([dataset[int(i)] for i in chosen])
    torch.manual_seed(0)
    untrained = Generator(generator.config).eval()
    samples, untrained_samples = (draw_images(g, len(chosen)) for g in (generator, untrained))
    masks = foreground_mask(photographs)
    silhouette = masks.float().mean(dim=0) > 0.5
    seen = see_poses(discriminator, photographs)
    truth = load_ground_truth(data).pose[chosen]
    return ToyScores(
        _mean_iou(foreground_mask(samples), silhouette),
        _mean_iou(masks, silhouette),
        sliced_wasserstein(samples, photographs),
        sliced_wasserstein(untrained_samples, photographs),
        *(float(np.corrcoef(seen[:, i], truth[:, i])[0, 1]) for i in range(2)),
        *_turned_ious(generator, seen, truth),
    )


@torch.no_grad()
def draw_images(generator: Generator, count: int, seed: int = 0) -> Tensor:
    """uint8 [count, 3, R, R] of latents drawn with `seed`."""
    z = torch.randn(count, generator.config.generator.z_dim, generator=_random(seed))
    return _to_uint8(torch.cat([generator(part).select(0).image for part in z.split(AT_ONCE)]))


@torch.no_grad()
def see_poses(discriminator: Discriminator, images: Tensor) -> np.ndarray:
    """D's poses [N, 2], in radians, of uint8 images [N, 3, R, R]."""
    parts = images.split(AT_ONCE)
    return torch.cat([discriminator(part / 127.5 - 1).pose for part in parts]).numpy()


def _turned_ious(
    generator: Generator, seen: np.ndarray, truth: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`ToyScores.turned_iou` and that of the data. seen, truth: poses [N, 2] of photographs."""
    turns = pose_from_degrees(torch.tensor([[turn, 0.0] for turn in TURNS]), POSE_MEAN[0])
    alignment = align(_directions(torch.from_numpy(seen)), _directions(torch.from_numpy(truth)))
    there = _directions(turns).double() @ alignment.matrix  # in the network's world
    poses = pose_from_direction(there.float(), generator.config.camera.mean_h)
    samples = turned_silhouettes(generator, poses, SAMPLES_TURNED)
    size = generator.config.data.resolution
    random = np.random.default_rng(0)
    heads = torch.stack(
        [
            render_head(Head.random(random), toy_cameras(turns), size).mask
            for _ in range(HEADS_TURNED + SAMPLES_TURNED)
        ]
    )
    known, others = heads.split([HEADS_TURNED, SAMPLES_TURNED])
    return tuple(
        tuple(_nearest_iou(masks[:, i], known[:, i]) for i in range(len(TURNS)))
        for masks in (samples, others)
    )


@torch.no_grad()
def turned_silhouettes(generator: Generator, poses: Tensor, count: int) -> Tensor:
    """bool [count, V, R, R]: foreground of samples, each seen from V poses [V, 2]."""
    z = torch.randn(count, generator.config.generator.z_dim, generator=_random(1))
    masks = []
    for part in z.split(AT_ONCE):
        ws = generator.latent(part).ws
        cam2world = generator.cam2world(poses).expand(len(part), -1, 4, 4)
        images = generator.render(generator.planes(ws), ws[:, -1], cam2world).image
        masks.append(foreground_mask(_to_uint8(images)))
    return torch.cat(masks)


def _directions(poses: Tensor) -> Tensor:
    return toy_cameras(poses.double())[:, :3, 3] / RADIUS


def _nearest_iou(masks: Tensor, known: Tensor) -> float:
    """Mean over masks [N, R, R] of the overlap with the most similar of known [M, R, R]."""
    masks, known = masks.flatten(1).float(), known.flatten(1).float()
    both = masks @ known.T
    either = masks.sum(dim=1, keepdim=True) + known.sum(dim=1) - both
    return (both / either).amax(dim=1).mean().item()


def _to_uint8(images: Tensor) -> Tensor:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _mean_iou(masks: Tensor, silhouette: Tensor) -> float:
    both = (masks & silhouette).sum(dim=(1, 2))
    either = (masks | silhouette).sum(dim=(1, 2))
    return (both / either).mean().item()


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:.3f}" for number in numbers)


@click.command(cls=Command)
@click.option("--network", metavar="FILE", required=True, help="Network file of a toy run.")
@click.option("--data", type=click.Path(path_type=Path), help="Toy set.  [the run's default]")
def main(network: str, data: Path | None) -> None:
    """Print the scores of a network trained on the toy heads, as words and as JSON."""
    loaded = load_network(network)
    data = data or toy_dataset_path(loaded.config.data.resolution)
    scores = evaluate(loaded.generator, loaded.discriminator, data)
    click.echo(
        f"foreground of samples against the mean silhouette: IoU {scores.silhouette_iou:.3f} "
        f"(photographs themselves: {scores.silhouette_iou_of_data:.3f})\n"
        f"sliced Wasserstein distance to the photographs: {scores.distance:.2f} grey levels "
        f"(untrained: {scores.distance_untrained:.2f})\n"
        f"D's pose of photographs against the truth: correlation {scores.yaw_correlation:+.3f} "
        f"in yaw, {scores.pitch_correlation:+.3f} in pitch\n"
        f"silhouettes from yaws {TURNS} against the most similar head: IoU "
        f"{_listed(scores.turned_iou)} (other heads: {_listed(scores.turned_iou_of_data)})"
    )
    click.echo(json.dumps(scores._asdict()))


if __name__ == "__main__":
    main()
