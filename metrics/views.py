"""What the pose and shape metrics ask of a network, and what they report."""

import torch
from torch import Tensor

from dnnlib import UserError

from .context import Context
from .geometry import WarpErrors, relief, warp_errors
from .poses import align, pose_distance, pose_errors
from .scores import retrieval

POSES = 10_000
OBJECTS = 256
WARP_YAWS = (-10.0, 10.0)  # degrees from the sample's own camera; far enough to see parallax
IDENTITY_YAWS = (-20.0, 20.0)

Numbers = dict[str, float]


def measure_pose_error(context: Context) -> Numbers:
    """Alignment is fitted to every second photograph and judged on the others."""
    seen, true = _seen_and_true(context)
    fit, held_out = slice(0, None, 2), slice(1, None, 2)

    def errors(predicted: Tensor):
        alignment = align(predicted[fit], true[fit])
        return alignment, pose_errors(alignment(predicted[held_out]), true[held_out])

    alignment, found = errors(seen)
    _, constant = errors(seen.new_tensor([0.0, 0.0, 1.0]).expand_as(seen))
    return {
        "pose_error": found.median,
        "pose_error_p90": found.p90,
        "pose_error_yaw": found.yaw,
        "pose_error_pitch": found.pitch,
        "pose_error_yaw_correlation": found.yaw_correlation,
        "pose_error_pitch_correlation": found.pitch_correlation,
        "pose_error_constant": constant.median,
        "pose_error_constant_p90": constant.p90,
        "pose_error_mirrored": float(alignment.mirrored),
    }


def measure_pose_distribution(context: Context) -> Numbers:
    """The generator's poses are aligned as the discriminator's are: the two share one world."""
    seen, true = _seen_and_true(context)
    count = context.count or POSES
    drawn = context.runner.map(context.subject.directions, count, "poses of samples").double()
    return {
        "pose_distribution": pose_distance(align(seen[::2], true[::2])(drawn), true),
        "pose_distribution_of_halves": pose_distance(true[::2], true[1::2]),
    }


def measure_view_consistency(context: Context) -> Numbers:
    """Means over the pixels that both views see, of all objects together."""

    def errors(indices: range) -> Tensor:
        views = context.subject.views(indices, WARP_YAWS)
        return torch.stack([part.double() for part in warp_errors(views)], dim=1)

    count = context.count or OBJECTS
    rows = context.runner.map(errors, count, "two views of samples")
    sums = WarpErrors(*rows[rows[:, WarpErrors._fields.index("compared")] > 0].sum(dim=0).tolist())
    if not sums.compared:
        raise UserError("view_consistency: no sample shows a surface that two views share")
    return {
        "view_consistency_colour": sums.colour / sums.compared,
        "view_consistency_depth": sums.depth / sums.compared,
        "view_consistency_colour_unwarped": sums.unwarped / sums.compared,
        "view_consistency_compared": sums.compared / sums.inside,
    }


def measure_relief(context: Context) -> Numbers:
    def one_view(indices: range) -> Tensor:
        return relief(context.subject.views(indices, (0.0,)))

    values = context.runner.map(one_view, context.count or OBJECTS, "depth of samples")
    values = values[values.isfinite()]
    if not len(values):
        raise UserError("relief: no sample shows an object")
    return {"relief": values.mean().item(), "relief_std": values.std(correction=0).item()}


def _seen_and_true(context: Context) -> tuple[Tensor, Tensor]:
    """Directions [N, 3] of up to 10 000 photographs, as D sees them and as they are."""
    true = context.known_directions()
    chosen = context.photographs.choose(context.count or POSES)

    def see(indices: range) -> Tensor:
        return context.subject.see(context.photographs.batch(chosen[indices]))

    seen = context.once(
        ("seen",), lambda: context.runner.map(see, len(chosen), "poses of photographs")
    )
    return seen.double(), true[torch.from_numpy(chosen)].double()
