"""Resampling against its definition, written out with loops, and its derivatives."""

import pytest
import torch

from torch_utils.ops import resample_filter, upfirdn2d

CASES = [
    {},
    {"padding": (1, 1, 1, 1), "gain": 4},
    {"padding": (2, 1, 0, 3), "flip_filter": True},
    {"padding": (-1, 2, 2, -1)},
    {"up": 2, "padding": (2, 1, 2, 1), "gain": 4},
    {"up": 2, "padding": (3, 3, 0, 6), "flip_filter": True},
    {"up": (3, 1), "padding": (5, 0, 1, 1)},
    {"down": 2, "padding": (1, 1, 1, 1)},
    {"down": (1, 3), "padding": (0, 3, 2, 2)},
    {"up": (2, 3), "down": (3, 2), "padding": (4, 1, -1, 4), "gain": 0.5},
]


def _definition(x, kernel, up=1, down=1, padding=(0, 0, 0, 0), flip_filter=False, gain=1):
    up_x, up_y = (up, up) if isinstance(up, int) else up
    down_x, down_y = (down, down) if isinstance(down, int) else down
    x0, x1, y0, y1 = padding
    batch, channels, height, width = x.shape
    zeros = x.new_zeros(batch, channels, height * up_y, width * up_x)
    zeros[:, :, ::up_y, ::up_x] = x
    padded = torch.nn.functional.pad(zeros, [x0, x1, y0, y1])
    kernel = kernel if flip_filter else kernel.flip([0, 1])
    h, w = kernel.shape
    rows = range(0, padded.shape[2] - h + 1, down_y)
    columns = range(0, padded.shape[3] - w + 1, down_x)
    pixels = [
        (padded[:, :, r : r + h, c : c + w] * kernel).sum([2, 3]) for r in rows for c in columns
    ]
    return gain * torch.stack(pixels, -1).reshape(batch, channels, len(rows), len(columns))


@pytest.mark.parametrize("size", [(5, 6), (8, 4)])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_agrees_with_its_definition(options, size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(4, 3, dtype=torch.float64)
    expected = _definition(x, kernel, **options)
    actual = upfirdn2d(x, kernel, **options)
    torch.testing.assert_close(actual, expected)
    gradient = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, x, gradient), torch.autograd.grad(expected, x, gradient)
    )


@pytest.mark.parametrize("options", [CASES[1], CASES[4], CASES[7]], ids=str)
def test_second_derivatives(options):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    kernel = resample_filter([1, 3, 3, 1]).double()
    assert torch.autograd.gradgradcheck(lambda x: upfirdn2d(x, kernel, **options) ** 2, (x,))


def test_input_is_not_kept_for_the_backward_pass():
    saved = []
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        upfirdn2d(x, resample_filter([1, 3, 3, 1]), padding=(1, 1, 1, 1))
    assert max(t.numel() for t in saved) == 16


def test_upsampling_keeps_a_constant_image_constant_inside():
    y = upfirdn2d(
        torch.ones(1, 1, 6, 6), resample_filter([1, 3, 3, 1]), up=2, padding=(2, 1, 2, 1), gain=4
    )
    assert y.shape == (1, 1, 12, 12)
    torch.testing.assert_close(y[..., 1:-1, 1:-1], torch.ones(1, 1, 10, 10))


def test_channels_last_stays_channels_last():
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    y = upfirdn2d(x, resample_filter([1, 3, 3, 1]), padding=(1, 1, 1, 1))
    assert y.is_contiguous(memory_format=torch.channels_last)
