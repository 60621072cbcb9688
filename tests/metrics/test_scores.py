"""Scores against closed forms, other algorithms, and brute force."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from metrics import scores
from metrics.statistics import Moments


def normal_moments(mean: torch.Tensor, covariance: torch.Tensor, count: int = 1000) -> Moments:
    """The moments that samples of this distribution would have, exactly."""
    return Moments(count, mean * count, (covariance + torch.outer(mean, mean)) * count)


def random_rows(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) @ mixing + seed


def test_frechet_distance_of_diagonal_normals():
    """Commuting covariances: |m_a - m_b|^2 + sum (s_a - s_b)^2."""
    mean_a, mean_b = torch.tensor([0.0, 1, 2]).double(), torch.tensor([1.0, 1, 0]).double()
    std_a, std_b = torch.tensor([1.0, 2, 3]).double(), torch.tensor([2.0, 2, 0.5]).double()
    a, b = normal_moments(mean_a, std_a.square().diag()), normal_moments(mean_b, std_b.diag() ** 2)
    expected = (1 + 0 + 4) + (1 + 0 + 2.5**2)
    assert scores.frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    a, b = Moments.of(random_rows(500, 20, seed=1)), Moments.of(random_rows(400, 20, seed=2))
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()).real
    expected = (
        (a.mean - b.mean).square().sum()
        + a.covariance.trace()
        + b.covariance.trace()
        - 2 * np.trace(root)
    ).item()
    assert scores.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_is_exact_with_fewer_samples_than_dimensions():
    """Rows in a subspace lie as far apart as within it, where all is well-conditioned."""
    a, b = random_rows(30, 8, seed=1), random_rows(25, 8, seed=2)
    basis = torch.linalg.qr(random_rows(200, 200, seed=3)).Q[:8]
    expected = scores.frechet_distance(Moments.of(a), Moments.of(b))
    inside = scores.frechet_distance(Moments.of(a @ basis), Moments.of(b @ basis))
    assert inside == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    rows = random_rows(10, 60)
    assert scores.frechet_distance(Moments.of(rows), Moments.of(rows)) < 1e-9


def test_frechet_distance_of_single_points_is_their_squared_distance():
    a, b = Moments.of(torch.zeros(2, 3)), Moments.of(torch.tensor([[1.0, 2, 2]] * 5))
    assert scores.frechet_distance(a, b) == pytest.approx(9)


def test_kernel_distance_is_the_unbiased_estimate():
    """Against sums over pairs, written out."""
    real, fake = random_rows(6, 4, seed=1), random_rows(6, 4, seed=2)

    def kernel(x, y):
        return (float(x @ y) / 4 + 1) ** 3

    def mean_of_pairs(a, b, skip_self):
        pairs = [(i, j) for i in range(6) for j in range(6) if not (skip_self and i == j)]
        return np.mean([kernel(a[i], b[j]) for i, j in pairs])

    expected = (
        mean_of_pairs(real, real, True)
        + mean_of_pairs(fake, fake, True)
        - 2 * mean_of_pairs(real, fake, False)
    )
    assert scores.kernel_distance(real, fake, subsets=2) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_of_two_samples_of_one_distribution_averages_to_zero():
    rows = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    same = scores.kernel_distance(rows[:2000], rows[2000:], subset_size=200)
    other = scores.kernel_distance(rows[:2000], rows[2000:] + 0.3, subset_size=200)
    assert abs(same) < 0.02 < other


def brute_force_share(points, cover, k):
    """Of points within the distance of some cover point to its k-th neighbor."""
    radii = [sorted(math.dist(c, other) for other in cover)[k] for c in cover]
    inside = [any(math.dist(p, c) <= r for c, r in zip(cover, radii, strict=True)) for p in points]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_precision_and_recall_agree_with_brute_force(shift):
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(40, 3, generator=generator)
    fake = torch.randn(30, 3, generator=generator) * 0.7 + shift
    found = scores.precision_recall(real, fake, neighbors=3)
    assert found.precision == pytest.approx(brute_force_share(fake.tolist(), real.tolist(), 3))
    assert found.recall == pytest.approx(brute_force_share(real.tolist(), fake.tolist(), 3))


def test_precision_and_recall_know_copies_and_collapse():
    real = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert scores.precision_recall(real, real) == (1, 1)
    collapsed = real[:1] + 1e-3 * torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    precision, recall = scores.precision_recall(real, collapsed)
    assert precision == 1 and recall <= 0.02


def test_inception_score_of_confident_and_of_clueless_predictions():
    confident = torch.eye(5).repeat(40, 1)
    assert scores.inception_score(confident, splits=4).mean == pytest.approx(5)
    clueless = torch.full((40, 5), 0.2)
    assert scores.inception_score(clueless, splits=4) == pytest.approx((1, 0), abs=1e-6)


def test_identity_scores_know_identities_and_strangers():
    generator = torch.Generator().manual_seed(0)
    identities = torch.randn(20, 1, 30, generator=generator)
    noise = torch.randn(20, 2, 30, generator=generator)
    same = scores.identity_scores(identities + 0.1 * noise)
    strangers = scores.identity_scores(noise)
    assert same.recognized == 1 and same.same > 0.9 and abs(same.other) < 0.2
    assert abs(strangers.recognized - 0.5) < 0.15
