"""Numbers that say how far two sets of features lie apart. Pure functions of tensors.

Features are [N, F] with a row per image. All are exact up to rounding but KID, which averages over
random subsets; its seed is fixed.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .statistics import Moments

_ROWS_AT_ONCE = 1024  # of a matrix of distances


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two normal distributions (Dowson & Landau 1982).

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the FID of Heusel et al. 2017. With
    S = L L^T the last trace is the sum of the singular values of L_a^T L_b. Unlike a matrix square
    root, this stays real and accurate when a covariance is singular, as it is for N <= F.
    """
    shift = (a.mean - b.mean).square().sum()
    factors = [_factor(moments.covariance) for moments in (a, b)]
    spread = sum(factor.square().sum() for factor in factors)
    overlap = torch.linalg.svdvals(factors[0].mT @ factors[1]).sum()
    return (shift + spread - 2 * overlap).clamp(min=0).item()


def _factor(covariance: Tensor) -> Tensor:
    """L [F, rank] with L L^T = covariance; directions that hold rounding errors only are cut."""
    variances, directions = torch.linalg.eigh(covariance)
    floor = variances.max() * len(variances) * torch.finfo(variances.dtype).eps
    kept = variances > floor
    return directions[:, kept] * variances[kept].sqrt()


def kernel_distance(
    real: Tensor, fake: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> float:
    """Squared maximum mean discrepancy, unbiased, kernel (x . y / F + 1)^3.

    The KID of Binkowski et al. 2018; mean over random subsets of both sets, of equal size.

    Args:
        real: features [N, F].
        fake: features [M, F].
        subsets: their number.
        subset_size: rows in each; as many as there are in sets that are smaller.
        seed: of the choice of subsets.

    Raises:
        ValueError: for sets of fewer than two rows, which have no unbiased estimate.
    """
    size = min(subset_size, len(real), len(fake))
    if size < 2:
        raise ValueError(f"the kernel distance needs 2 rows of each set, not {size}")
    random = np.random.default_rng(seed)

    def draw(features: Tensor) -> Tensor:
        return features[torch.from_numpy(random.permutation(len(features))[:size])].double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.mT / x.shape[1] + 1) ** 3

    total = 0.0
    for _ in range(subsets):
        x, y = draw(fake), draw(real)
        within = kernel(x, x) + kernel(y, y)
        # The diagonal, a sample's likeness to itself, is what makes the plain estimate biased.
        within = (within.sum() - within.diagonal().sum()) / (size * (size - 1))
        total += (within - 2 * kernel(x, y).mean()).item()
    return total / subsets


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: of samples that look real, of photographs that could be samples."""

    precision: float
    recall: float


def precision_recall(real: Tensor, fake: Tensor, neighbors: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019).

    A set covers the balls round its points that reach to the k-th neighbor; precision is the share
    of fakes that the reals cover, recall the reverse.

    Args:
        real: features [N, F].
        fake: features [M, F].
        neighbors: k.
    """
    return PrecisionRecall(
        _covered(fake, real, neighbors).double().mean().item(),
        _covered(real, fake, neighbors).double().mean().item(),
    )


def _covered(points: Tensor, cover: Tensor, neighbors: int) -> Tensor:
    """Whether each point lies in a ball of the cover, [N]."""
    radii = torch.cat(
        [  # the nearest neighbor of a point is the point itself
            _distances(rows, cover).kthvalue(min(neighbors + 1, len(cover)), dim=1).values
            for rows in cover.split(_ROWS_AT_ONCE)
        ]
    )
    inside = [(_distances(rows, cover) <= radii).any(dim=1) for rows in points.split(_ROWS_AT_ONCE)]
    return torch.cat(inside)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # By inner products, of which float32 would keep too few digits for near neighbors.
    return torch.cdist(a.double(), b.double())


class InceptionScore(NamedTuple):
    """mean and std over the splits; between 1 and the number of classes."""

    mean: float
    std: float


def inception_score(probabilities: Tensor, splits: int = 10) -> InceptionScore:
    """Inception score (Salimans et al. 2016): exp of the mean KL(p(class | image) | p(class)).

    Args:
        probabilities: of K classes for N images, [N, K].
        splits: consecutive parts of the images, which are scored apart.
    """
    of_splits = []
    for part in probabilities.double().tensor_split(min(splits, len(probabilities))):
        marginal = part.mean(dim=0)
        divergence = torch.xlogy(part, part) - torch.xlogy(part, marginal)
        of_splits.append(divergence.sum(dim=1).mean().exp())
    scores = torch.stack(of_splits)
    return InceptionScore(scores.mean().item(), scores.std(correction=0).item())


class IdentityScores(NamedTuple):
    """How well identities are told from two views.

    recognized: probability that two views of one identity look more alike than views of two; 0.5
    is chance. same, other: mean cosine similarity within and across identities.
    """

    recognized: float
    same: float
    other: float


def identity_scores(features: Tensor) -> IdentityScores:
    """Compare two views of each identity with views of the others.

    Args:
        features: [N, 2, F], two views of N >= 2 identities; their mean over all images is taken
            away first.
    """
    features = features.double()
    centered = torch.nn.functional.normalize(features - features.mean(dim=(0, 1)), dim=-1)
    similarity = centered[:, 0] @ centered[:, 1].mT
    same = similarity.diagonal()
    others = similarity[~torch.eye(len(same), dtype=torch.bool)].reshape(len(same), -1)
    margin = same[:, None] - others
    recognized = (margin > 0).double().mean() + (margin == 0).double().mean() / 2
    return IdentityScores(recognized.item(), same.mean().item(), others.mean().item())
