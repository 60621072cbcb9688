"""Layers that all networks are made of."""

import math

import pytest
import torch
import torch.nn.functional as F

from torch_utils.ops import resample_filter
from training.networks import layers

KERNEL = resample_filter(layers.RESAMPLE_TAPS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("act", ["linear", "lrelu"])
@pytest.mark.parametrize("inputs, lr_multiplier", [(16, 1), (512, 1), (512, 0.01)])
def test_fully_connected_keeps_unit_variance_at_any_width_and_speed(act, inputs, lr_multiplier):
    layer = layers.FullyConnected(inputs, 512, act=act, lr_multiplier=lr_multiplier)
    assert layer.weight.std().item() == pytest.approx(1 / lr_multiplier, rel=0.05)
    y = layer(torch.randn(256, inputs))
    assert y.square().mean().item() == pytest.approx(1.04 if act == "lrelu" else 1, rel=0.1)


def test_bias_of_fully_connected_starts_where_it_is_set():
    layer = layers.FullyConnected(4, 3, bias_init=1)
    torch.testing.assert_close(layer(torch.zeros(2, 4)), torch.ones(2, 3))


@pytest.mark.parametrize("kernel_size, channels", [(1, 64), (3, 8), (3, 64)])
def test_convolution_keeps_unit_variance(kernel_size, channels):
    layer = layers.Conv2d(channels, 128, kernel_size)
    y = layer(torch.randn(4, channels, 16, 16))[:, :, 2:-2, 2:-2]
    assert y.square().mean().item() == pytest.approx(1, rel=0.15)


def test_gain_below_one_scales_the_clamp_alike():
    layer = layers.Conv2d(4, 4, 3, act="lrelu", clamp=0.5)
    x = 10 * torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(layer(x, gain=0.5), layer(x) * 0.5)
    assert layer(x).abs().max() == 0.5
    assert layer(x, gain=2).abs().max() == 0.5


def test_down_sampling_halves_the_size():
    for size in (1, 3):
        assert layers.Conv2d(4, 6, size, down=2)(torch.randn(2, 4, 8, 8)).shape == (2, 6, 4, 4)


def test_second_moment():
    y = layers.normalize_second_moment(5 * torch.randn(7, 33))
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(7))
    assert layers.normalize_second_moment(torch.zeros(1, 3)).isfinite().all()


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("size", [6, 16])  # activations are scaled, weights are scaled
def test_modulated_convolution_is_one_with_each_samples_own_weight(up, demodulate, size):
    """Equations 1 and 3 of Karras et al. 2020, sample by sample."""
    x, weight = torch.randn(3, 4, size, size).double(), torch.randn(5, 4, 3, 3).double()
    styles, kernel = torch.randn(3, 4).double(), KERNEL.double()
    ours = layers.modulated_conv2d(x, weight, styles, kernel=kernel, up=up, demodulate=demodulate)
    for i in range(3):
        own = weight * styles[i, :, None, None]
        if demodulate:
            own = own / own.square().sum(dim=(1, 2, 3), keepdim=True).add(1e-8).sqrt()
        expected = layers.conv2d_resample(x[i : i + 1], own, kernel=kernel, up=up)
        torch.testing.assert_close(ours[i : i + 1], expected)


@pytest.mark.parametrize("size", [3, 6])
@pytest.mark.parametrize("up, demodulate", [(1, True), (2, True), (1, False)])
def test_second_derivatives_of_the_modulated_convolution(up, demodulate, size):
    shapes = [(2, 2, size, size), (1, 2, 3, 3), (2, 2)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def function(*inputs):
        return layers.modulated_conv2d(
            *inputs, kernel=KERNEL.double(), up=up, demodulate=demodulate
        )

    assert torch.autograd.gradgradcheck(function, inputs)


def test_demodulation_cancels_the_scale_of_styles_and_weights():
    shapes = [(2, 8, 8, 8), (4, 8, 3, 3), (2, 8)]
    x, weight, styles = (torch.randn(*shape, dtype=torch.float64) for shape in shapes)

    def convolve(weight, styles, **options):
        return layers.modulated_conv2d(x, weight, styles, kernel=KERNEL, **options)

    torch.testing.assert_close(convolve(5 * weight, 7 * styles), convolve(weight, styles))
    plain = convolve(weight, styles, demodulate=False)
    torch.testing.assert_close(convolve(weight, 7 * styles, demodulate=False), 7 * plain)


def test_half_precision_does_not_overflow():
    x, weight = torch.randn(2, 8, 8, 8), 300 * torch.randn(4, 8, 3, 3)
    styles = 500 * torch.randn(2, 8)
    full = layers.modulated_conv2d(x, weight, styles, kernel=KERNEL)
    half = layers.modulated_conv2d(x.half(), weight, styles, kernel=KERNEL)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), full, atol=0.02, rtol=0.02)


def test_noise_kinds():
    layer = layers.SynthesisLayer(4, 4, 8, 8)
    x, w = torch.randn(1, 4, 8, 8).expand(2, -1, -1, -1), torch.randn(1, 8).expand(2, -1)
    assert torch.equal(layer(x, w, "random"), layer(x, w, "none"))  # strength starts at zero
    layer.noise_strength.data.fill_(1)
    assert torch.equal(layer(x, w, "const"), layer(x, w, "const"))
    assert torch.equal(*layer(x, w, "const"))
    assert not torch.equal(layer(x, w, "const"), layer(x, w, "none"))
    assert not torch.equal(*layer(x, w, "random"))  # each sample has noise of its own


def test_block_adds_its_image_to_the_enlarged_one():
    block = layers.SynthesisBlock(4, 6, 8, 16, 3)
    x, image, ws = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8)
    y, alone = block(x, None, ws, "none", torch.float32)
    _, both = block(x, image, ws, "none", torch.float32)
    assert y.shape == (2, 6, 16, 16)
    torch.testing.assert_close(both - alone, layers.upsample2x(image, KERNEL))
    flat = layers.upsample2x(torch.ones(1, 1, 8, 8), KERNEL)
    torch.testing.assert_close(flat[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12))


@pytest.mark.parametrize("batch, size", [(8, 4), (4, 4), (6, 3), (5, 1), (3, 3), (2, 2), (1, 1)])
def test_minibatch_std_groups(batch, size):
    """Sample i belongs to group i mod (batch / size); size is the largest that divides, up to 4."""
    x = torch.randn(batch, 3, 4, 4)
    y = layers.minibatch_std(x, group_size=4)
    assert y.shape == (batch, 4, 4, 4)
    assert torch.equal(y[:, :3], x)
    groups = batch // size
    for i in range(batch):
        spread = (x[i % groups :: groups].var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(y[i, 3], spread.expand(4, 4))


def test_minibatch_std_of_equal_samples_has_a_finite_gradient():
    x = torch.ones(4, 2, 4, 4, requires_grad=True)
    y = layers.minibatch_std(x)
    assert y[:, -1].max().item() == pytest.approx(1e-4)
    y.sum().backward()
    assert x.grad.isfinite().all()


def test_resampling_needs_a_filter():
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3)
    for options in ({"up": 2}, {"down": 2}):
        with pytest.raises(ValueError, match="low-pass"):
            layers.conv2d_resample(x, weight, **options)


def test_convolutions_are_those_of_torch_where_nothing_is_resampled():
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3)
    torch.testing.assert_close(
        layers.conv2d_resample(x, weight, kernel=KERNEL), F.conv2d(x, weight, padding=1)
    )
    layer = layers.Conv2d(4, 6, 3)
    expected = F.conv2d(x, layer.weight / math.sqrt(36), layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)
