"""Viewing directions compared: unit vectors [N, 3] against the camera's optical axis, y up.

For cameras that look at a pivot, they point from there to the camera. Unlike directions from the
origin of the world, they do not depend on where that lies, nor on the world's scale; nor can images
tell.

Unposed images fix the world only up to a rotation and a reflection, so directions are aligned
before they are compared. Yaw is the longitude, zero toward +z and growing toward +x; pitch is the
latitude.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

YAW_BINS, PITCH_BINS = 32, 16


class Alignment(NamedTuple):
    """matrix: orthogonal [3, 3], applied as matrix @ direction. mirrored: its determinant is -1."""

    matrix: Tensor
    mirrored: bool

    def __call__(self, directions: Tensor) -> Tensor:
        """Directions [N, 3] of the source's world in the target's."""
        return directions @ self.matrix.mT


class PoseErrors(NamedTuple):
    """Errors of viewing directions.

    median, p90: of the angle between directions, degrees. yaw, pitch: median absolute errors,
    degrees. yaw_correlation, pitch_correlation: circular, in [-1, 1].
    """

    median: float
    p90: float
    yaw: float
    pitch: float
    yaw_correlation: float
    pitch_correlation: float


def align(source: Tensor, target: Tensor) -> Alignment:
    """The rotation or reflection that brings source [N, 3] closest to target, in least squares.

    Kabsch 1976 would flip a sign to exclude reflections; without, the better of both determinants
    results (Schonemann 1966).
    """
    u, _, vh = torch.linalg.svd(target.double().mT @ source.double())
    matrix = u @ vh
    return Alignment(matrix, bool(torch.linalg.det(matrix) < 0))


def pose_errors(estimated: Tensor, true: Tensor) -> PoseErrors:
    """Errors of estimates [N, 3] that are aligned with the truth [N, 3] already."""
    estimated, true = estimated.double(), true.double()
    angle = angle_between(estimated, true).rad2deg()
    (yaw, pitch), (true_yaw, true_pitch) = yaw_and_pitch(estimated), yaw_and_pitch(true)
    yaw_error = torch.remainder(yaw - true_yaw + math.pi, 2 * math.pi) - math.pi
    return PoseErrors(
        angle.quantile(0.5).item(),
        angle.quantile(0.9).item(),
        yaw_error.abs().rad2deg().quantile(0.5).item(),
        (pitch - true_pitch).abs().rad2deg().quantile(0.5).item(),
        circular_correlation(yaw, true_yaw),
        circular_correlation(pitch, true_pitch),
    )


class FlipConsistency(NamedTuple):
    """How well the poses of mirrored photographs are the mirrored poses; needs no true ones.

    median: of the angle between them, degrees. chance: the same for poses of other photographs; a
    constant pose makes both zero. yaw_correlation: circular, in [-1, 1].
    """

    median: float
    chance: float
    yaw_correlation: float


def flip_consistency(estimated: Tensor, flipped: Tensor) -> FlipConsistency:
    """Compare estimates [N, 3] of photographs with those of the same ones, flipped left to right.

    A flip reflects the world in a vertical plane, whose longitude is fitted: the mean of both yaws.
    """
    estimated, flipped = estimated.double(), flipped.double()
    (yaw, pitch), (flipped_yaw, _) = yaw_and_pitch(estimated), yaw_and_pitch(flipped)
    twice = yaw + flipped_yaw
    expected_yaw = torch.atan2(twice.sin().sum(), twice.cos().sum()) - yaw
    expected = direction(expected_yaw, pitch)
    return FlipConsistency(
        angle_between(expected, flipped).rad2deg().quantile(0.5).item(),
        angle_between(expected.roll(1, dims=0), flipped).rad2deg().quantile(0.5).item(),
        circular_correlation(expected_yaw, flipped_yaw),
    )


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Angles [N] in radians of directions [N, 3]; accurate for small ones, where arccos is not."""
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(dim=-1))


def yaw_and_pitch(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Longitude and latitude, radians [N] each, of unit vectors [N, 3]."""
    x, y, z = directions.unbind(-1)
    return torch.atan2(x, z), torch.asin(y.clamp(-1, 1))


def direction(yaw: Tensor, pitch: Tensor) -> Tensor:
    """The inverse of `yaw_and_pitch`: unit vectors [N, 3]."""
    level = pitch.cos()
    return torch.stack([level * yaw.sin(), pitch.sin(), level * yaw.cos()], dim=-1)


def circular_correlation(a: Tensor, b: Tensor) -> float:
    """Correlation of angles [N] in radians (Fisher & Lee 1983); Pearson's where they spread little.

    sum sin(a_i - a_j) sin(b_i - b_j) over pairs, normalized; written with sums over i alone. Zero
    where one of them does not vary.
    """
    cos_a, sin_a, cos_b, sin_b = a.cos(), a.sin(), b.cos(), b.sin()
    together = (cos_a * cos_b).sum() * (sin_a * sin_b).sum()
    together -= (cos_a * sin_b).sum() * (sin_a * cos_b).sum()
    alone = [len(x) ** 2 - (2 * x).cos().sum() ** 2 - (2 * x).sin().sum() ** 2 for x in (a, b)]
    if min(alone) <= len(a) ** 2 * 1e-12:
        return 0.0
    return (4 * together / (alone[0] * alone[1]).sqrt()).item()


def pose_distance(a: Tensor, b: Tensor) -> float:
    """Jensen-Shannon distance, base 2, of two sets of directions, in [0, 1] (Lin 1991).

    Histograms of 32 bins of yaw by 16 of sin(pitch): cells of equal area on the whole sphere.
    """
    p, q = _histogram(a), _histogram(b)
    middle = (p + q) / 2
    both = torch.stack([p, q])
    divergence = (torch.xlogy(both, both) - torch.xlogy(both, middle)).sum() / 2
    return (divergence / math.log(2)).clamp(min=0).sqrt().item()


def _histogram(directions: Tensor) -> Tensor:
    yaw, pitch = yaw_and_pitch(directions.double())
    column = ((yaw / (2 * math.pi) + 0.5) * YAW_BINS).long().clamp(0, YAW_BINS - 1)
    row = ((pitch.sin() + 1) / 2 * PITCH_BINS).long().clamp(0, PITCH_BINS - 1)
    counts = torch.bincount(row * YAW_BINS + column, minlength=YAW_BINS * PITCH_BINS)
    return counts / counts.sum().double()
