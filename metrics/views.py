"""What the pose and shape metrics ask of a network, and what they report."""

from typing import NamedTuple

import torch
from torch import Tensor

from dnnlib import UserError
from torch_utils.images import to_uint8

from .context import Context, Measured
from .geometry import WarpErrors, relief, warp_errors
from .poses import align, pose_distance, pose_errors
from .scores import identity_scores

POSES = 10_000
OBJECTS = 256
WARP_YAWS = (-10.0, 10.0)  # degrees from the sample's own camera; far enough to see parallax
IDENTITY_YAWS = (-20.0, 20.0)

_FORWARD = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def measure_pose_error(context: Context) -> Measured:
    """Alignment is fitted to one half of the photographs and judged on the other."""
    halves = _seen_and_true(context)
    alignment = align(*halves.fitted)
    found = pose_errors(alignment(halves.held_out.seen), halves.held_out.true)
    constants = [pairs._replace(seen=_FORWARD.expand_as(pairs.seen)) for pairs in halves]
    constant = pose_errors(align(*constants[0])(constants[1].seen), halves.held_out.true)
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
    return Measured("pose_error", numbers)


def measure_pose_distribution(context: Context) -> Measured:
    """The generator's poses are aligned as the discriminator's are: the two share one world."""
    halves = _seen_and_true(context)
    count = context.count or POSES
    drawn = context.runner.map(context.subject.directions, count, "poses of samples").double()
    true = torch.cat([pairs.true for pairs in halves])
    numbers = {
        "": pose_distance(align(*halves.fitted)(drawn), true),
        "_of_halves": pose_distance(*(pairs.true for pairs in halves)),
    }
    return Measured("pose_distribution", numbers)


def measure_view_consistency(context: Context) -> Measured:
    """Means over the pixels that both views see, of all objects together."""

    def errors(indices: range) -> Tensor:
        views = context.subject.views(indices, WARP_YAWS)
        return torch.stack([part.double() for part in warp_errors(views)], dim=1)

    rows = context.runner.map(errors, context.count or OBJECTS, "two views of samples")
    sums = WarpErrors(*rows.sum(dim=0).tolist())
    if not sums.compared:
        raise UserError("view_consistency: no sample shows a surface that two views share")
    numbers = {
        "_color": sums.color / sums.compared,
        "_depth": sums.depth / sums.compared,
        "_color_unwarped": sums.unwarped / sums.compared,
        "_compared": sums.compared / sums.inside,
    }
    return Measured("view_consistency", numbers)


def measure_relief(context: Context) -> Measured:
    """Mean and spread over samples."""

    def one_view(indices: range) -> Tensor:
        return relief(context.subject.views(indices, (0.0,)))

    values = context.runner.map(one_view, context.count or OBJECTS, "depth of samples")
    values = values[values.isfinite()]
    if not len(values):
        raise UserError("relief: no sample shows an object")
    return Measured("relief", {"": values.mean().item(), "_std": values.std(correction=0).item()})


def measure_identity(context: Context, which: str) -> Measured:
    """Of two views of each sample, by the features of a detector."""
    detector = context.load_detector(which)

    def features(indices: range) -> Tensor:
        images = context.subject.views(indices, IDENTITY_YAWS).image
        return detector.features(to_uint8(images.flatten(0, 1))).unflatten(0, images.shape[:2])

    rows = context.runner.map(features, context.count or OBJECTS, "identity of samples")
    found = identity_scores(rows)
    numbers = {"": found.recognized, "_same": found.same, "_other": found.other}
    return Measured(f"identity_consistency-{detector.name}", numbers)


class _Pairs(NamedTuple):
    """Directions [N, 3] of the same photographs: as D sees them, as they are."""

    seen: Tensor
    true: Tensor


class _Halves(NamedTuple):
    fitted: _Pairs
    held_out: _Pairs


def _seen_and_true(context: Context) -> _Halves:
    """Of up to `POSES` photographs, drawn at random."""
    true = context.known_directions()
    chosen = context.photographs.choose(context.count or POSES)
    if len(chosen) < 4:
        raise UserError(f"{len(chosen)} photographs are too few to compare poses")

    def see(indices: range) -> Tensor:
        return context.subject.see(context.photographs.batch(chosen[indices]))

    seen = context.once(
        ("seen",), lambda: context.runner.map(see, len(chosen), "poses of photographs")
    )
    pairs = seen.double(), true[torch.from_numpy(chosen)].double()
    middle = len(chosen) // 2
    return _Halves(_Pairs(*(x[:middle] for x in pairs)), _Pairs(*(x[middle:] for x in pairs)))
