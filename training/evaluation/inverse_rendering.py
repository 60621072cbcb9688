"""What an inverse renderer finds in photographs of toy heads, measured against their ground truth.

python -m training.evaluation.inverse_rendering --network FILE [--data toy.zip]
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from torch import Tensor

from dnnlib import Command, UserError
from torch_utils.images import resize, to_float
from training.data.dataset import ImageDataset
from training.data.ground_truth import GroundTruth, load_ground_truth
from training.data.toy_heads import Head, Render, render_head, toy_intrinsics
from training.data.toy_set import toy_dataset_path
from training.files.inverse_renderer_file import load_inverse_renderer_file
from training.files.network_file import find_network, load_network
from training.geod import erode, forward_components
from training.networks.image_formation import SIZE, Frustum, surface_normals
from training.networks.inverse_renderer import InverseRenderer

AT_ONCE = 16


class Shapes(NamedTuple):
    """What is seen in B photographs.

    depth: [B, 64, 64], along the camera's axis, world units. normal: [B, 64, 64, 3], as
    `surface_normals` has them.
    """

    depth: Tensor
    normal: Tensor


class ShapeErrors(NamedTuple):
    """Means over photographs.

    depth: root mean square over the head, world units, after the offset and the scale (not below 0)
    that suit each photograph best; a head is 0.4 deep. normal: mean angle over the head without its
    edge, degrees.
    """

    depth: float
    normal: float


def evaluate(network: InverseRenderer, data: Path, count: int = 256) -> dict[str, ShapeErrors]:
    """How far the shapes in `count` photographs of a toy set are from the truth, by who tells them.

    True normals are taken as the inverse renderer takes its own, with its field of view.

    Args:
        network: frozen.
        data: path of the toy set.
        count: of photographs.

    Returns:
        Of the inverse renderer, and of guesses that it should beat: 'facing plane'; 'best plane',
        the tilted one nearest to the true depth; 'mean shape', the mean of all true depths.

    Raises:
        UserError: where the data are no toy set.
    """
    dataset, known = ImageDataset(data, None), load_ground_truth(data)
    chosen = np.random.default_rng(0).permutation(len(dataset))[:count]
    mask, depth = true_depth(known, chosen)
    truth = _with_normals(depth, network.frustum)
    guesses = {
        "facing plane": torch.full_like(depth, network.frustum.center),
        "best plane": _best_planes(depth, mask),
        "mean shape": _mean_shape(depth, mask).expand_as(depth),
    }
    photographs = torch.stack([dataset[int(i)] for i in chosen])
    found = {"inverse renderer": find_shapes(network, photographs)}
    found |= {name: _with_normals(guess, network.frustum) for name, guess in guesses.items()}
    return {
        name: ShapeErrors(
            depth_error(shapes.depth, depth, mask), normal_error(shapes.normal, truth.normal, mask)
        )
        for name, shapes in found.items()
    }


@torch.no_grad()
def find_shapes(network: InverseRenderer, photographs: Tensor) -> Shapes:
    """The objects, not their mirror images, in photographs, uint8 [B, 3, R, R]."""
    device = next(network.parameters()).device
    parts = []
    for some in photographs.split(AT_ONCE):
        geometry = network.geometry(resize(to_float(some.to(device)), SIZE))
        parts.append((geometry.depth[: len(some)].cpu(), geometry.normal[: len(some)].cpu()))
    depth, normal = zip(*parts, strict=True)
    return Shapes(torch.cat(depth), torch.cat(normal))


def true_depth(known: GroundTruth, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Where heads are, bool [B, 64, 64], and their depth along the camera's axis, [B, 64, 64].

    Rendered anew, since what a toy set stores is too coarse for normals.

    Raises:
        UserError: where the images are not of toy heads.
    """
    again = _render(known, chosen[0], known.depth.shape[-1])
    if not np.allclose(again.depth[0].numpy(), known.depth[chosen[0]], atol=0.01):
        raise UserError("the data are no toy set: its heads cannot be made again")
    views = [_render(known, i, SIZE) for i in chosen]
    distance = torch.cat([view.depth for view in views])[:, None]
    depth = (distance * forward_components(distance, toy_intrinsics()))[:, 0]
    return torch.cat([view.mask for view in views]), depth


def _render(known: GroundTruth, index: int, size: int) -> Render:
    head = Head.random(np.random.default_rng(known.identity[index]))
    return render_head(head, torch.from_numpy(known.cam2world[index])[None], size)


def _with_normals(depth: Tensor, frustum: Frustum) -> Shapes:
    return Shapes(depth, surface_normals(frustum.points(depth)))


def _best_planes(depth: Tensor, mask: Tensor) -> Tensor:
    """Planes [B, 64, 64] in the image, nearest by least squares to depths [B, 64, 64]."""
    index = torch.linspace(-1, 1, SIZE)
    rows, columns = torch.meshgrid(index, index, indexing="ij")
    basis = torch.stack([rows, columns, torch.ones_like(rows)], dim=-1)
    planes = [
        basis @ torch.linalg.lstsq(basis[inside], one[inside][:, None]).solution[:, 0]
        for one, inside in zip(depth, mask, strict=True)
    ]
    return torch.stack(planes)


def _mean_shape(depth: Tensor, mask: Tensor) -> Tensor:
    """Mean depth [64, 64] of those heads that reach a pixel; of all heads where none does."""
    count = mask.sum(dim=0)
    mean = (depth * mask).sum(dim=0) / count.clamp(min=1)
    return torch.where(count > 0, mean, depth[mask].mean())


def depth_error(found: Tensor, truth: Tensor, mask: Tensor) -> float:
    """`ShapeErrors.depth` of depths [B, 64, 64], mask: bool, nowhere empty."""
    errors = []
    for one, true, inside in zip(found, truth, mask, strict=True):
        x, y = one[inside] - one[inside].mean(), true[inside] - true[inside].mean()
        scale = ((x @ y) / (x @ x).clamp(min=1e-8)).clamp(min=0)
        errors.append((y - scale * x).square().mean().sqrt())
    return torch.stack(errors).mean().item()


def normal_error(found: Tensor, truth: Tensor, mask: Tensor) -> float:
    """`ShapeErrors.normal` of normals [B, 64, 64, 3]; heads of a pixel's width do not count."""
    inside = erode(mask[:, None].float())[:, 0] > 0
    sine, cosine = torch.linalg.cross(found, truth).norm(dim=-1), (found * truth).sum(dim=-1)
    angle = torch.atan2(sine, cosine) * (180 / math.pi)  # acos is coarse near 0
    return torch.stack(list(_means(angle, inside))).mean().item()


def _means(values: Tensor, mask: Tensor) -> Iterator[Tensor]:
    for one, inside in zip(values, mask, strict=True):
        if inside.any():
            yield one[inside].mean()


@click.command(cls=Command)
@click.option(
    "--network", metavar="FILE", required=True, help="Network file written with --with-ir."
)
@click.option("--data", type=click.Path(path_type=Path), help="Toy set.  [the run's default]")
def main(network: str, data: Path | None) -> None:
    """Print how well an inverse renderer tells shapes of toy heads, as words and as JSON."""
    path = find_network(network)
    inverse_renderer = load_inverse_renderer_file(path)
    data = data or toy_dataset_path(load_network(path).config.data.resolution)
    scores = evaluate(inverse_renderer, data)
    for name, errors in scores.items():
        click.echo(f"{name:>16}: depth {errors.depth:.4f}, normals {errors.normal:.1f} degrees")
    click.echo(json.dumps({name: errors._asdict() for name, errors in scores.items()}))


if __name__ == "__main__":
    main()
