"""Alignment and its errors where the truth is known."""

import math

import pytest
import torch
from torch import Tensor

from metrics import poses


def random_directions(count: int = 400, spread: float = 0.4, seed: int = 0) -> Tensor:
    """Directions round +z, as faces are photographed."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, count, generator=generator, dtype=torch.float64) * spread
    return torch.nn.functional.normalize(torch.stack([x, y, torch.ones_like(x)], dim=1), dim=1)


def random_rotation(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    return q * torch.linalg.det(q)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_alignment_undoes_rotations_and_reflections(sign):
    true = random_directions()
    world = random_rotation() @ torch.diag(torch.tensor([sign, 1, 1], dtype=torch.float64))
    estimated = true @ world.mT
    alignment = poses.align(estimated[::2], true[::2])
    errors = poses.pose_errors(alignment(estimated[1::2]), true[1::2])
    assert alignment.mirrored == (sign < 0)
    assert errors.p90 < 1e-5
    assert errors.yaw_correlation == pytest.approx(1)
    assert errors.pitch_correlation == pytest.approx(1)


def test_error_is_the_noise_that_was_added():
    """Directions turned by 5 degrees about random axes are off by 5 degrees."""
    true = random_directions()
    axis = torch.linalg.cross(true, random_directions(seed=1), dim=1)
    axis = torch.nn.functional.normalize(axis, dim=1)
    angle = math.radians(5)
    estimated = math.cos(angle) * true + math.sin(angle) * torch.linalg.cross(axis, true, dim=1)
    errors = poses.pose_errors(estimated, true)
    assert errors.median == pytest.approx(5) and errors.p90 == pytest.approx(5)


def test_shuffled_poses_are_no_better_than_a_constant():
    true = random_directions(2000)
    shuffled = true[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]

    def errors(estimated):
        return poses.pose_errors(
            poses.align(estimated[::2], true[::2])(estimated[1::2]), true[1::2]
        )

    wrong = errors(shuffled)
    constant = errors(torch.tensor([[0.0, 0, 1]]).double().expand(2000, 3))
    assert abs(wrong.yaw_correlation) < 0.1 and abs(wrong.pitch_correlation) < 0.1
    # Two draws are further apart than one is from the middle: by sqrt 2 in a flat world.
    assert wrong.median == pytest.approx(constant.median * math.sqrt(2), rel=0.1)
    assert constant.yaw_correlation == 0


def test_yaw_errors_do_not_jump_behind_the_head():
    angle = torch.tensor([math.pi - 0.01, -math.pi + 0.01], dtype=torch.float64)
    a, b = (torch.stack([x.sin(), 0 * x, x.cos()], dim=1) for x in (angle, angle.flip(0)))
    assert poses.pose_errors(a, b).yaw == pytest.approx(math.degrees(0.02))


def test_circular_correlation_is_pearson_where_angles_spread_little_and_wraps():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(500, generator=generator, dtype=torch.float64) * 0.01
    b = a + torch.randn(500, generator=generator, dtype=torch.float64) * 0.01
    pearson = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    assert poses.circular_correlation(a, b) == pytest.approx(pearson, abs=1e-3)
    around = torch.rand(500, generator=generator, dtype=torch.float64) * 2 * math.pi
    turned = torch.remainder(around + 2, 2 * math.pi)
    assert poses.circular_correlation(around, turned) == pytest.approx(1)
    assert poses.circular_correlation(around, -turned) == pytest.approx(-1)


def test_circular_correlation_is_the_sum_over_pairs():
    a, b = torch.rand(2, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6
    da, db = ((x[:, None] - x).sin() for x in (a, b))
    expected = (da * db).sum() / (da.square().sum() * db.square().sum()).sqrt()
    assert poses.circular_correlation(a, b) == pytest.approx(expected.item())


def test_pose_distance_is_zero_one_and_something_in_between():
    front, back = random_directions(5000), -random_directions(5000)
    assert poses.pose_distance(front, front) == 0
    assert poses.pose_distance(front, back) == pytest.approx(1)
    mixed = torch.cat([front, back])
    # Half of the mixture is shared: JSD = (log 4/3 + (1/2 log 2/3 + 1/2 log 2)) / 2 in bits.
    expected = (math.log2(4 / 3) + (math.log2(2 / 3) + math.log2(2)) / 2) / 2
    assert poses.pose_distance(front, mixed) == pytest.approx(math.sqrt(expected), rel=1e-9)


@pytest.mark.parametrize("turn", [0.0, 1.0])
def test_flip_consistency_is_the_noise_of_the_flipped_poses_in_whatever_world(turn):
    yaw, pitch = poses.yaw_and_pitch(random_directions())
    noise = math.radians(2) * torch.randn(
        len(yaw), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    flipped = poses.direction(turn - yaw, pitch + noise)
    found = poses.flip_consistency(poses.direction(yaw + turn, pitch), flipped)
    assert found.median == pytest.approx(noise.abs().median().rad2deg().item(), rel=0.01)
    assert found.chance > 15
    assert found.yaw_correlation == pytest.approx(1)


def test_poses_that_ignore_the_flip_are_not_consistent():
    directions = random_directions()
    found = poses.flip_consistency(directions, directions)
    assert found.yaw_correlation == pytest.approx(-1)
    assert found.median > 15
