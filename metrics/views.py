"""What the pose and shape metrics ask of a network, and what they report."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dnnlib import UserError
from torch_utils.images import to_uint8

from .context import Context
from .geometry import Surfaces, nearest_depth_error, relief, warp_errors
from .poses import align, flip_consistency, pose_distance, pose_errors
from .result import MetricResult
from .scores import identity_scores

POSES = 10_000
OBJECTS = 256
WARP_YAWS = (-10.0, 10.0)  # degrees from the sample's own camera; far enough to see parallax
IDENTITY_YAWS = (-20.0, 20.0)

_FORWARD = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def measure_pose_error(context: Context) -> MetricResult:
    """Errors of the discriminator's poses of photographs, in degrees; see docs/metrics.md.

    The alignment is fitted to one half of the photographs, and the errors are those of the other.

    Returns:
        pose_error (the median), _p90, _yaw, _pitch, _yaw_correlation, _pitch_correlation,
        _constant, _constant_p90, _mirrored.

    Raises:
        UserError: where the poses are not known, or no discriminator estimates them.
    """
    halves = _estimated_and_true(context)
    alignment = align(*halves.fitted)
    found = pose_errors(alignment(halves.held_out.estimated), halves.held_out.true)
    same = [pairs._replace(estimated=_FORWARD.expand_as(pairs.estimated)) for pairs in halves]
    constant = pose_errors(align(*same[0])(same[1].estimated), halves.held_out.true)
    numbers = {
        "": found.median,
        "_p90": found.p90,
        "_yaw": found.yaw,
        "_pitch": found.pitch,
        "_yaw_correlation": found.yaw_correlation,
        "_pitch_correlation": found.pitch_correlation,
        "_constant": constant.median,
        "_constant_p90": constant.p90,
        "_mirrored": float(alignment.mirrored),
    }
    return MetricResult.of("pose_error", numbers)


def measure_pose_distribution(context: Context) -> MetricResult:
    """Distance of the generator's viewing directions from the true ones, in [0, 1].

    The generator's are aligned as the discriminator's are: the two share one world.

    Returns:
        pose_distribution, and _of_halves: of the true ones among themselves.

    Raises:
        UserError: as `measure_pose_error`; also where the generator has no poses of its own.
    """
    halves = _estimated_and_true(context)
    count = context.count or POSES
    drawn = context.runner.map(context.model.directions, count, "poses of samples").double()
    true = torch.cat([pairs.true for pairs in halves])
    numbers = {
        "": pose_distance(align(*halves.fitted)(drawn), true),
        "_of_halves": pose_distance(*(pairs.true for pairs in halves)),
    }
    return MetricResult.of("pose_distribution", numbers)


def measure_pose_flip_consistency(context: Context) -> MetricResult:
    """Whether the discriminator's poses of flipped photographs are the flipped poses.

    It needs no true poses. What it measures is necessary, not sufficient: see docs/metrics.md.

    Returns:
        pose_flip_consistency (median angle in degrees), _chance and _yaw_correlation; see
        `poses.FlipConsistency`.

    Raises:
        UserError: where no discriminator estimates poses.
    """
    images = context.all_images
    chosen = images.choose(context.count or POSES)

    def estimate(indices: range) -> Tensor:
        batch = images.batch(chosen[indices])
        both = [context.model.estimate_directions(x) for x in (batch, batch.flip(-1))]
        return torch.stack(both, dim=1)

    pairs = context.runner.map(estimate, len(chosen), "poses of flipped photographs")
    found = flip_consistency(*pairs.unbind(1))
    numbers = {
        "": found.median,
        "_chance": found.chance,
        "_yaw_correlation": found.yaw_correlation,
    }
    return MetricResult.of("pose_flip_consistency", numbers)


def measure_view_consistency(context: Context) -> MetricResult:
    """How far two views of an object contradict each other; see `geometry.warp_errors`.

    Returns:
        view_consistency_color (0 to 1), _depth (widths of the object), _color_unwarped and
        _compared (a share): means over the pixels that both views show, of all objects together.

    Raises:
        UserError: where there is no such pixel.
    """

    def errors(indices: range) -> Tensor:
        views = context.model.views(indices, WARP_YAWS)
        return torch.stack([part.double() for part in warp_errors(views)], dim=1)

    rows = context.runner.map(errors, context.count or OBJECTS, "two views of samples")
    color, depth, unwarped, compared, inside = rows.sum(dim=0).tolist()  # as in WarpErrors
    if not compared:
        raise UserError("view_consistency: no sample shows a surface that two views share")
    numbers = {
        "_color": color / compared,
        "_depth": depth / compared,
        "_color_unwarped": unwarped / compared,
        "_compared": compared / inside,
    }
    return MetricResult.of("view_consistency", numbers)


def measure_relief(context: Context) -> MetricResult:
    """Depth of the visible surface by the object's width; see `geometry.relief`.

    Returns:
        relief and relief_std, mean and standard deviation over samples that show an object.

    Raises:
        UserError: where none does.
    """

    def one_view(indices: range) -> Tensor:
        return relief(context.model.views(indices, (0.0,)))

    values = context.runner.map(one_view, context.count or OBJECTS, "depth of samples")
    values = values[values.isfinite()]
    if not len(values):
        raise UserError("relief: no sample shows an object")
    return MetricResult.of(
        "relief", {"": values.mean().item(), "_std": values.std(correction=0).item()}
    )


def measure_depth_error(context: Context) -> MetricResult:
    """Visible surfaces of samples against the most similar true ones; see `nearest_depth_error`.

    Returns:
        depth_error, the mean over samples in world units, and _of_photographs, the same of other
        photographs.

    Raises:
        UserError: where depths or poses are not known.
    """
    if context.true_depths is None:
        raise UserError("depth_error: the depths of this data set are not known")
    halves, depths = _estimated_and_true(context), context.true_depths[_compared(context)].double()
    alignment, middle = align(*halves.fitted), len(depths) // 2
    known = Surfaces(halves.fitted.true, depths[:middle])
    others = Surfaces(halves.held_out.true, depths[middle:])

    def of_samples(indices: range) -> Tensor:
        view = context.model.views(indices, (0.0,))
        depth, mask = view.depth[:, 0, 0].double(), view.mask[:, 0, 0]
        directions = alignment(context.model.directions(indices).double())
        surface = Surfaces(directions, depth.where(mask, math.nan))
        return nearest_depth_error(surface, known.resized(depth.shape[-1]))

    def of_photographs(indices: range) -> Tensor:
        return nearest_depth_error(Surfaces(*(part[list(indices)] for part in others)), known)

    count = context.count or OBJECTS
    samples = context.runner.map(of_samples, count, "depth of samples")
    photographs = context.runner.map(
        of_photographs, min(count, len(depths) - middle), "depth of photographs"
    )
    numbers = {"": samples.nanmean().item(), "_of_photographs": photographs.nanmean().item()}
    return MetricResult.of("depth_error", numbers)


def measure_identity(context: Context, which: str) -> MetricResult:
    """Whether two views of a sample look more alike than views of two; see `identity_scores`.

    Args:
        context: the network and the number of samples.
        which: the detector whose features are compared.

    Returns:
        identity_consistency-DETECTOR (a probability), _same and _other (cosines).

    Raises:
        UserError: for a single sample.
    """
    if context.count == 1:
        raise UserError("identity_consistency needs at least 2 samples")
    detector = context.load_detector(which)

    def features(indices: range) -> Tensor:
        images = context.model.views(indices, IDENTITY_YAWS).image
        return detector.features(to_uint8(images.flatten(0, 1))).unflatten(0, images.shape[:2])

    rows = context.runner.map(features, context.count or OBJECTS, "identity of samples")
    found = identity_scores(rows)
    numbers = {"": found.recognized, "_same": found.same, "_other": found.other}
    return MetricResult.of(f"identity_consistency-{detector.name}", numbers)


class _Pairs(NamedTuple):
    """Directions [N, 3] of the same photographs: D's estimates, and the truth."""

    estimated: Tensor
    true: Tensor


class _Halves(NamedTuple):
    fitted: _Pairs
    held_out: _Pairs


def _compared(context: Context) -> np.ndarray:
    """Numbers of the photographs whose poses are compared with the truth, drawn at random."""
    return context.all_images.choose(context.count or POSES)


def _estimated_and_true(context: Context) -> _Halves:
    """Of the compared photographs, the first half and the second."""
    true, chosen = context.known_directions(), _compared(context)
    if len(chosen) < 4:
        raise UserError(f"{len(chosen)} photographs are too few to compare poses: 4 are needed")

    def estimate(indices: range) -> Tensor:
        return context.model.estimate_directions(context.all_images.batch(chosen[indices]))

    estimated = context.cached(
        ("estimated directions",),
        lambda: context.runner.map(estimate, len(chosen), "poses of photographs"),
    )
    pairs = estimated.double(), true[torch.from_numpy(chosen)].double()
    middle = len(chosen) // 2
    return _Halves(_Pairs(*(x[:middle] for x in pairs)), _Pairs(*(x[middle:] for x in pairs)))
