"""What a network trained on the toy heads has learned, measured against their ground truth.

python -m training.evaluation.toy_evaluation --network FILE [--data toy.zip]
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
from torch_utils.images import to_float, to_uint8
from training.cameras import pose_from_degrees, pose_from_direction
from training.data.dataset import ImageDataset
from training.data.toy_heads import (
    POSE_MEAN,
    RADIUS,
    Head,
    foreground_mask,
    load_ground_truth,
    render_head,
    toy_cameras,
    toy_dataset_path,
)
from training.files.network_file import load_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator

AT_ONCE = 16
TURNS = (-40, -20, 0, 20, 40)  # yaws from which samples are compared, degrees
SAMPLES_TURNED, HEADS_TURNED = 64, 256


class ToyScores(NamedTuple):
    """silhouette_iou: mean overlap of a sample's foreground with the data's mean silhouette; of the
    data itself in silhouette_iou_of_data. distance: sliced Wasserstein to the data, of the network
    and of an untrained one. yaw_correlation, pitch_correlation: of D's pose of photographs with the
    truth; a sign of -1 is a mirrored world, which nothing in unposed images rules out.
    turned_iou: of samples seen from each of TURNS with the most similar of many heads seen from
    there, means; of heads the network did not make in turned_iou_of_data. turned_depth_error: mean
    difference in depth from those same heads, world units, where both are; a head is 0.4 deep.
    """

    silhouette_iou: float
    silhouette_iou_of_data: float
    distance: float
    distance_untrained: float
    yaw_correlation: float
    pitch_correlation: float
    turned_iou: tuple[float, ...]
    turned_iou_of_data: tuple[float, ...]
    turned_depth_error: tuple[float, ...]
    turned_depth_error_of_data: tuple[float, ...]


class ObjectViews(NamedTuple):
    """N objects, each seen from V poses. mask: bool [N, V, R, R], foreground. depth: of the same
    shape, distance from the camera in world units; it counts in the foreground alone."""

    mask: Tensor
    depth: Tensor


class NearestMatch(NamedTuple):
    """Of objects with the most similar known ones, means for each of V poses. iou: overlap of the
    silhouettes, by which they are chosen. depth_error: mean difference where both are."""

    iou: tuple[float, ...]
    depth_error: tuple[float, ...]


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
    seen = estimate_poses(discriminator, photographs)
    truth = load_ground_truth(data).pose[chosen]
    turned, turned_of_data = compare_turned(generator, seen, truth)
    return ToyScores(
        _mean_iou(foreground_mask(samples), silhouette),
        _mean_iou(masks, silhouette),
        sliced_wasserstein(samples, photographs),
        sliced_wasserstein(untrained_samples, photographs),
        *(float(np.corrcoef(seen[:, i], truth[:, i])[0, 1]) for i in range(2)),
        turned.iou,
        turned_of_data.iou,
        turned.depth_error,
        turned_of_data.depth_error,
    )


@torch.no_grad()
def draw_images(generator: Generator, count: int, seed: int = 0) -> Tensor:
    """uint8 [count, 3, R, R] of latents drawn with `seed`."""
    z = torch.randn(count, generator.config.generator.z_dim, generator=_random(seed))
    return to_uint8(torch.cat([generator(part).select(0).image for part in z.split(AT_ONCE)]))


@torch.no_grad()
def estimate_poses(discriminator: Discriminator, images: Tensor) -> np.ndarray:
    """D's poses [N, 2], in radians, of uint8 images [N, 3, R, R]."""
    parts = images.split(AT_ONCE)
    return torch.cat([discriminator(to_float(part)).pose for part in parts]).numpy()


def compare_turned(
    generator: Generator, seen: np.ndarray, truth: np.ndarray
) -> tuple[NearestMatch, NearestMatch]:
    """NearestMatch, from each of TURNS, of samples with true heads, and of other true heads.

    seen, truth: poses [N, 2] of photographs, which align the network's world with the truth.
    """
    turns = pose_from_degrees(torch.tensor([[turn, 0.0] for turn in TURNS]), POSE_MEAN[0])
    alignment = align(_directions(torch.from_numpy(seen)), _directions(torch.from_numpy(truth)))
    there = _directions(turns).double() @ alignment.matrix  # in the network's world
    poses = pose_from_direction(there.float(), generator.config.camera.mean_h)
    samples = turned_samples(generator, poses, SAMPLES_TURNED)
    size = generator.config.data.resolution
    random = np.random.default_rng(0)
    known, others = (
        _turned_heads(random, turns, size, count) for count in (HEADS_TURNED, SAMPLES_TURNED)
    )
    return nearest_match(samples, known), nearest_match(others, known)


@torch.no_grad()
def turned_samples(generator: Generator, poses: Tensor, count: int) -> ObjectViews:
    """Samples, each seen from V poses [V, 2]."""
    z = torch.randn(count, generator.config.generator.z_dim, generator=_random(1))
    parts = []
    for part in z.split(AT_ONCE):
        ws = generator.latent(part).ws
        cam2world = generator.cam2world(poses).expand(len(part), -1, 4, 4)
        view = generator.render(generator.planes(ws), ws[:, -1], cam2world)
        parts.append(ObjectViews(foreground_mask(to_uint8(view.image)), view.depth[:, :, 0]))
    return ObjectViews(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _turned_heads(random: np.random.Generator, poses: Tensor, size: int, count: int) -> ObjectViews:
    """Heads of the toy set, each seen from V poses [V, 2]."""
    views = [render_head(Head.random(random), toy_cameras(poses), size) for _ in range(count)]
    return ObjectViews(
        *(torch.stack([getattr(v, field) for v in views]) for field in ObjectViews._fields)
    )


def nearest_match(objects: ObjectViews, known: ObjectViews) -> NearestMatch:
    """Of objects with the most similar of `known`, seen from the same poses."""
    means = []
    for view in range(objects.mask.shape[1]):
        masks, known_masks = (solids.mask[:, view] for solids in (objects, known))
        both = masks.flatten(1).float() @ known_masks.flatten(1).float().T
        either = masks.sum(dim=(1, 2))[:, None] + known_masks.sum(dim=(1, 2)) - both
        iou, nearest = (both / either).max(dim=1)
        shared = masks & known_masks[nearest]
        apart = (objects.depth[:, view] - known.depth[nearest, view]).abs()
        means.append((iou.mean().item(), apart[shared].mean().item()))
    return NearestMatch(*zip(*means, strict=True))


def _directions(poses: Tensor) -> Tensor:
    return toy_cameras(poses.double())[:, :3, 3] / RADIUS


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
        f"sliced Wasserstein distance to the photographs: {scores.distance:.2f} gray levels "
        f"(untrained: {scores.distance_untrained:.2f})\n"
        f"D's pose of photographs against the truth: correlation {scores.yaw_correlation:+.3f} "
        f"in yaw, {scores.pitch_correlation:+.3f} in pitch\n"
        f"silhouettes from yaws {TURNS} against the most similar head: IoU "
        f"{_listed(scores.turned_iou)} (other heads: {_listed(scores.turned_iou_of_data)})\n"
        f"depth of the same, difference from that head: {_listed(scores.turned_depth_error)} "
        f"(other heads: {_listed(scores.turned_depth_error_of_data)})"
    )
    click.echo(json.dumps(scores._asdict()))


if __name__ == "__main__":
    main()
