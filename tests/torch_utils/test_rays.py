"""Rays: native kernels against plain torch, and both against what is known analytically."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops import rays, using
from torch_utils.ops.triplane_render import FieldSamples


def fields(counts: tuple[int, ...], colors: int, count: int = 37) -> list[FieldSamples]:
    return [
        FieldSamples(
            (4 * torch.randn(2, count, samples, 1)).requires_grad_(),
            torch.rand(2, count, samples, colors).requires_grad_(),
        )
        for samples in counts
    ]


def value_and_gradients(function, inputs: list[Tensor]) -> list[Tensor]:
    outputs = function()
    weights = [torch.linspace(-1, 1, y.numel()).reshape(y.shape) for y in outputs]
    return [*outputs, *torch.autograd.grad(outputs, inputs, weights)]


def agree(function, inputs: list[Tensor]) -> None:
    found = []
    for mode in ("native", "torch"):
        with using(mode):
            found.append(value_and_gradients(function, inputs))
    for own, expected in zip(*found, strict=True):
        assert own.shape == expected.shape
        assert (own - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("counts", [(2,), (12,), (4, 7), (48, 70)])
@pytest.mark.parametrize("colors", [1, 3, 5])
def test_blending_agrees_with_plain_torch(counts, colors):
    torch.manual_seed(0)
    passes = fields(counts, colors)
    # Whole multiples, so that no two are equal: their order would be arbitrary.
    places = torch.argsort(torch.rand(2, 37, sum(counts)), dim=-1) / sum(counts)
    depths = (2 + places).split(counts, dim=-1)
    inputs = [part for samples in passes for part in samples]
    agree(lambda: rays.blend(passes, depths, density_scale=5), inputs)


def test_blending_what_is_opaque_empty_or_not_a_number():
    depths = [torch.linspace(1, 2, 6).expand(1, 3, 6)]
    sigma = torch.tensor([1e4, -1e4, torch.nan])[None, :, None, None].expand(1, 3, 6, 1)
    passes = [FieldSamples(sigma, torch.rand(1, 3, 6, 3))]
    with using("native"):
        own = rays.blend(passes, depths)
    with using("torch"):
        expected = rays.blend(passes, depths)
    torch.testing.assert_close(own, expected, equal_nan=True)
    assert own.opacity.flatten()[:2].tolist() == [1, 0]


def test_points_agree_with_plain_torch():
    torch.manual_seed(0)
    origins, directions = (torch.randn(2, 5, 3, requires_grad=True) for _ in range(2))
    depths = torch.rand(2, 5, 4)
    agree(lambda: [rays.points_on_rays(origins, directions, depths)], [origins, directions])


@pytest.mark.parametrize("samples, wanted", [(3, 2), (4, 1), (10, 10), (48, 20)])
def test_importance_samples_agree_with_plain_torch(samples, wanted):
    torch.manual_seed(0)
    depths = torch.rand(2, 37, samples).sort(dim=-1)[0]
    sigma, u = 4 * torch.randn(2, 37, samples), torch.rand(2, 37, wanted)
    found = []
    for mode in ("native", "torch"):
        with using(mode):
            found.append(rays.importance_depths(depths, sigma, u, density_scale=5))
    torch.testing.assert_close(*found, atol=1e-4, rtol=0)  # steep where the mass is small


@pytest.mark.parametrize("threads", [1, 2])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    torch.manual_seed(0)
    passes, depths = fields((9,), 3), [torch.rand(2, 37, 9)]
    inputs = [*passes[0]]
    before = torch.get_num_threads()
    with using("native"):
        expected = value_and_gradients(lambda: rays.blend(passes, depths), inputs)
        torch.set_num_threads(threads)
        try:
            found = value_and_gradients(lambda: rays.blend(passes, depths), inputs)
        finally:
            torch.set_num_threads(before)
    assert all(map(torch.equal, found, expected))


def test_weights_and_what_passes_add_up_to_one():
    torch.manual_seed(0)
    sigma, depths = 3 * torch.randn(2, 5, 8).double(), torch.rand(2, 5, 8).double().sort()[0]
    delta = depths.diff(dim=-1)
    density = F.softplus((sigma[..., 1:] + sigma[..., :-1]) / 2 - 1)
    passing = rays.transmittance(density, delta)
    total = rays.interval_weights(sigma, depths).sum(dim=-1) + passing[..., -1]
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-8, rtol=0)
    assert (passing.diff(dim=-1) <= 1e-9).all()


def test_shares_of_the_samples_add_up_to_the_weights_of_the_intervals():
    """Sum of share x color = sum of weight x mean color of the interval (EG3D's midpoints)."""
    g = torch.Generator().manual_seed(0)
    weights, color = torch.rand(2, 5, 7, generator=g), torch.randn(2, 5, 8, generator=g)
    blended = (rays.sample_weights(weights) * color).sum(-1)
    expected = (weights * (color[..., 1:] + color[..., :-1]) / 2).sum(-1)
    torch.testing.assert_close(blended, expected)


def test_importance_samples_gather_where_the_weight_is():
    depths = torch.linspace(0, 1, 41).expand(1, 1, 41)
    weights = torch.zeros(1, 1, 40)
    weights[..., 30] = 1.0  # between depths 0.75 and 0.775
    u = (torch.arange(100) + 0.5).expand(1, 1, 100) / 100
    fine = rays.invert_weights(depths, weights, u)
    assert (fine.diff(dim=-1) >= 0).all()
    assert 0 < fine.min() and fine.max() < 1
    # The blur spreads the peak over its neighbors; a fourteenth of the mass is spread evenly.
    assert ((fine > 0.7) & (fine < 0.825)).float().mean() > 0.75
    even = rays.invert_weights(depths, torch.ones_like(weights), u)
    torch.testing.assert_close(even.diff(dim=-1).max(), even.diff(dim=-1).min(), atol=1e-4, rtol=0)
