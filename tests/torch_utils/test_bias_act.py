"""Bias and activation against their formula, with first and second derivatives."""

import pytest
import torch

from torch_utils.ops import bias_act, using
from torch_utils.ops.bias_act import ACTIVATIONS, bias_act_formula


@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_value_and_derivatives(act, with_bias, clamp):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True) if with_bias else None
    alpha, gain = ACTIVATIONS[act].default_alpha, 1.7

    def function(*inputs):
        return bias_act(*inputs, act=act, gain=gain, clamp=clamp)

    shaped = None if bias is None else bias.reshape(1, 3, 1, 1)
    expected = bias_act_formula(x, shaped, act, alpha, gain, clamp)
    inputs = (x,) if bias is None else (x, bias)
    torch.testing.assert_close(function(*inputs), expected)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("shape, dim", [((5, 3), -1), ((5, 3), 1), ((3, 2, 2), 0), ((2, 4, 3), 2)])
def test_bias_lies_along_the_given_dimension(shape, dim):
    bias = torch.tensor([1.0, 2.0, 3.0])
    y = bias_act(torch.zeros(shape), bias, dim=dim).movedim(dim, -1)
    assert torch.equal(y, bias.expand(y.shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_keeps_type_and_layout_and_leaves_its_input_alone(dtype, layout):
    x = torch.randn(2, 3, 4, 5).to(dtype).contiguous(memory_format=layout)
    before = x.clone()
    y = bias_act(x, torch.ones(3), act="lrelu", clamp=256)
    assert y.dtype == dtype and y.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


def test_gains_that_turn_the_slopes_round():
    x = torch.tensor([-2.0, 3.0])
    assert torch.allclose(bias_act(x, act="lrelu", gain=-1), torch.tensor([0.4, -3.0]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 70, 9, 8), (5, 33)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [True, False])
def test_native_kernel_rounds_like_plain_torch_or_better(dtype, shape, layout, with_bias):
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype)
    x = x.contiguous(memory_format=layout) if x.ndim == 4 else x
    inputs = [x.requires_grad_(), *[torch.randn(shape[1], requires_grad=True)] * with_bias]
    weight = torch.randn(shape).to(dtype)

    def value_and_gradients(mode):
        with using(mode):
            y = bias_act(*inputs, act="lrelu", clamp=1.5)
            return [y, *torch.autograd.grad(y, inputs, weight)]

    found, expected = value_and_gradients("native"), value_and_gradients("torch")
    for own, twin in zip(found, expected, strict=True):
        assert own.dtype == twin.dtype and own.stride() == twin.stride()
        if dtype == torch.float32:
            assert torch.equal(own, twin)
    torch.testing.assert_close(found[0], expected[0], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_kernel_keeps_what_is_not_a_number(dtype):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 0] * 9, dtype=dtype)
    with using("native"):
        assert bias_act(x, act="lrelu", clamp=2).isnan().tolist() == [True, False, False, False] * 9
        assert bias_act(x, act="lrelu", clamp=2)[1:3].tolist() == [2, -2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["torch", "auto"])
def test_values_at_a_clamp_that_the_type_cannot_hold_pass_no_gradient(mode, dtype):
    x = torch.tensor([1000.0, -1000.0, 1.0] * 20, dtype=dtype, requires_grad=True)
    with using(mode):
        bias_act(x, act="lrelu", alpha=1, gain=1, clamp=181.0193).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.0] * 20


@pytest.mark.parametrize("mode", ["torch", "auto"])
def test_a_bias_may_have_one_element(mode):
    x = torch.randn(5, 1, 7, 3)
    with using(mode):
        y = bias_act(x, torch.tensor([0.3]), act="lrelu")
    torch.testing.assert_close(y, torch.nn.functional.leaky_relu(x + 0.3, 0.2) * 2**0.5)
