"""What a network trained on the toy heads has learned, measured against their ground truth.

python -m training.evaluation.ground_truth --network FILE [--data toy.zip]
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from torch import Tensor

from dnnlib import Command, UserError
from metrics.poses import align
from metrics.sliced_wasserstein import sliced_wasserstein
from torch_utils.images import to_uint8
from training.cameras import pose_from_degrees, pose_from_viewing_direction, viewing_directions
from training.data.dataset import ImageDataset
from training.data.ground_truth import load_ground_truth
from training.data.toy_heads import POSE_MEAN, Head, foreground_mask, render_head, toy_cameras
from training.data.toy_set import toy_dataset_path
from training.files.network_file import load_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.outputs.objects import Objects

AT_ONCE = 16
TURNS = (-40, -20, 0, 20, 40)  # yaws from which samples are compared, degrees
SAMPLES_TURNED, HEADS_TURNED = 64, 256


@dataclass(frozen=True)
class ToyScores:
    """How far a network has come.

    Attributes:
        silhouette_iou: mean overlap of a sample's foreground with the data's mean silhouette.
        silhouette_iou_of_data: the same of the photographs.
        distance: sliced Wasserstein distance of samples to the data, gray levels.
        distance_untrained: the same of an untrained network.
        yaw_correlation: of D's estimate of h of photographs with the truth; a sign of -1 is a
            mirrored world, which nothing in unposed images rules out.
        pitch_correlation: the same of v.
        turned_iou: overlap of samples seen from each of TURNS with the most similar of many heads
            seen from there, means.
        turned_iou_of_data: the same of heads that the network did not make.
        turned_depth_error: mean difference in depth from those same heads, world units, where both
            are; a head is 0.4 deep.
        turned_depth_error_of_data: the same of heads that the network did not make.
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
    """N objects from V poses.

    mask: bool [N, V, R, R], foreground. depth: of the same shape, distance from the camera in world
    units; it counts in the foreground alone.
    """

    mask: Tensor
    depth: Tensor


class NearestMatch(NamedTuple):
    """Objects against the most similar known ones, means for each of V poses.

    iou: overlap of the silhouettes, by which they are chosen. depth_error: mean difference where
    both are, world units.
    """

    iou: tuple[float, ...]
    depth_error: tuple[float, ...]


def evaluate(
    generator: Generator, discriminator: Discriminator, data: Path, count: int = 512
) -> ToyScores:
    """Scores of `count` samples against as many of the photographs in a toy set.

    Args:
        generator: in evaluation mode.
        discriminator: on the same device.
        data: path of the toy set.
        count: of samples and photographs.

    Raises:
        UserError: where the data are no toy set.
    """
    dataset = ImageDataset(data, generator.config.data.resolution)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:count]
    photographs = torch.stack([dataset[int(i)] for i in chosen])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = Generator(generator.config).eval()
    untrained.to(generator.intrinsics.device)
    samples, untrained_samples = (draw_images(g, len(chosen)) for g in (generator, untrained))
    masks = foreground_mask(photographs)
    silhouette = masks.float().mean(dim=0) > 0.5
    truth = torch.from_numpy(load_ground_truth(data).pose[chosen])
    estimated = estimate_poses(generator, discriminator, photographs)
    turned, turned_of_data = compare_turned(generator, estimated, truth)
    correlations = [float(np.corrcoef(estimated[:, i], truth[:, i])[0, 1]) for i in range(2)]
    return ToyScores(
        silhouette_iou=_mean_iou(foreground_mask(samples), silhouette),
        silhouette_iou_of_data=_mean_iou(masks, silhouette),
        distance=sliced_wasserstein(samples, photographs),
        distance_untrained=sliced_wasserstein(untrained_samples, photographs),
        yaw_correlation=correlations[0],
        pitch_correlation=correlations[1],
        turned_iou=turned.iou,
        turned_iou_of_data=turned_of_data.iou,
        turned_depth_error=turned.depth_error,
        turned_depth_error_of_data=turned_of_data.depth_error,
    )


@torch.no_grad()
def draw_images(generator: Generator, count: int) -> Tensor:
    """The objects of the first `count` seeds from their own poses, uint8 [count, 3, R, R]."""
    parts = (Objects.from_seeds(generator, seeds).own_view() for seeds in _batches(count))
    return torch.cat([to_uint8(view.image).cpu() for view in parts])


def estimate_poses(generator: Generator, discriminator: Discriminator, images: Tensor) -> Tensor:
    """D's estimates [N, 2] of the poses, (h, v) in radians, of uint8 images [N, 3, R, R]."""
    raw = generator.raw_resolution
    parts = [discriminator.estimate_pose(part, raw).cpu() for part in images.split(AT_ONCE)]
    return torch.cat(parts)


def compare_turned(
    generator: Generator, estimated: Tensor, truth: Tensor
) -> tuple[NearestMatch, NearestMatch]:
    """Samples, and heads that the network did not make, from the side, against true heads.

    Args:
        generator: whose samples are turned.
        estimated: [N, 2], poses of photographs in the network's world.
        truth: [N, 2], the same in the world of the toy set, which aligns the two.

    Returns:
        Of the samples and of the other heads, from each of TURNS.
    """
    turns = pose_from_degrees(torch.tensor([[turn, 0.0] for turn in TURNS]), POSE_MEAN[0])
    poses = _poses_in_network(generator, turns, estimated, truth)
    size = generator.config.data.resolution
    random = np.random.default_rng(0)
    known, others = (
        _turned_heads(random, turns, size, count) for count in (HEADS_TURNED, SAMPLES_TURNED)
    )
    samples = turned_samples(generator, poses, SAMPLES_TURNED)
    return nearest_match(samples, known), nearest_match(others, known)


def _poses_in_network(
    generator: Generator, poses: Tensor, estimated: Tensor, truth: Tensor
) -> Tensor:
    """Poses [V, 2] of the toy set's world, as poses of the network's."""
    own = generator.cam2world(estimated.to(generator.intrinsics))
    alignment = align(viewing_directions(own.cpu()), viewing_directions(toy_cameras(truth)))
    directions = viewing_directions(toy_cameras(poses)).double() @ alignment.matrix
    cameras = generator.config.camera
    return pose_from_viewing_direction(
        directions.float(), cameras.radius, cameras.pivot, cameras.mean_h
    )


@torch.no_grad()
def turned_samples(generator: Generator, poses: Tensor, count: int) -> ObjectViews:
    """The objects of the first `count` seeds, each seen from V poses [V, 2]."""
    masks, depths = [], []
    for seeds in _batches(count):
        view = Objects.from_seeds(generator, seeds).render(poses)
        masks.append(foreground_mask(to_uint8(view.image).cpu()))
        depths.append(view.depth[:, :, 0].cpu())
    return ObjectViews(torch.cat(masks), torch.cat(depths))


def _turned_heads(random: np.random.Generator, poses: Tensor, size: int, count: int) -> ObjectViews:
    """Heads of the toy set, each seen from V poses [V, 2]."""
    views = [render_head(Head.random(random), toy_cameras(poses), size) for _ in range(count)]
    return ObjectViews(torch.stack([v.mask for v in views]), torch.stack([v.depth for v in views]))


def nearest_match(objects: ObjectViews, known: ObjectViews) -> NearestMatch:
    """Compare objects with the most similar of `known`, seen from the same poses."""
    ious, depth_errors = [], []
    for view in range(objects.mask.shape[1]):
        masks, known_masks = (views.mask[:, view] for views in (objects, known))
        both = masks.flatten(1).float() @ known_masks.flatten(1).float().T
        either = masks.sum(dim=(1, 2))[:, None] + known_masks.sum(dim=(1, 2)) - both
        iou, nearest = (both / either).max(dim=1)
        shared = masks & known_masks[nearest]
        apart = (objects.depth[:, view] - known.depth[nearest, view]).abs()
        ious.append(iou.mean().item())
        depth_errors.append(apart[shared].mean().item())
    return NearestMatch(tuple(ious), tuple(depth_errors))


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, AT_ONCE):
        yield range(start, min(start + AT_ONCE, count))


def _mean_iou(masks: Tensor, silhouette: Tensor) -> float:
    both = (masks & silhouette).sum(dim=(1, 2))
    either = (masks | silhouette).sum(dim=(1, 2))
    return (both / either).mean().item()


def _json(value: float | tuple[float, ...]) -> float | list | None:
    """NaN, as of silhouettes that share no pixel, is not JSON."""
    if isinstance(value, tuple):
        return [_json(part) for part in value]
    return None if math.isnan(value) else value


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:.3f}" for number in numbers)


@click.command(cls=Command)
@click.option("--network", metavar="FILE", required=True, help="Network file of a toy run.")
@click.option("--data", type=click.Path(path_type=Path), help="Toy set.  [the run's default]")
def main(network: str, data: Path | None) -> None:
    """Print the scores of a network trained on the toy heads, as words and as JSON."""
    loaded = load_network(network)
    data = data or toy_dataset_path(loaded.config.data.resolution)
    if loaded.discriminator is None:
        raise UserError(f"{network} has no discriminator, whose poses align it with the truth")
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
    click.echo(json.dumps({k: _json(v) for k, v in dataclasses.asdict(scores).items()}))


if __name__ == "__main__":
    main()
