"""Bias, activation, gain, clamp: the tail of every layer, in that order."""

import ctypes
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cuda, kernels


class Activation(NamedTuple):
    """An activation with the gain that keeps the variance of its input (He et al. 2015)."""

    function: Callable[[Tensor, float], Tensor]
    default_alpha: float
    default_gain: float


ACTIVATIONS = {
    "linear": Activation(lambda x, _: x, 0.0, 1.0),
    "relu": Activation(lambda x, _: F.relu(x), 0.0, math.sqrt(2)),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), 0.2, math.sqrt(2)),
    "tanh": Activation(lambda x, _: torch.tanh(x), 0.0, 1.0),
    "sigmoid": Activation(lambda x, _: torch.sigmoid(x), 0.0, 1.0),
    "elu": Activation(lambda x, _: F.elu(x), 0.0, 1.0),
    "selu": Activation(lambda x, _: F.selu(x), 0.0, 1.0),
    "softplus": Activation(lambda x, _: F.softplus(x), 0.0, 1.0),
    "swish": Activation(lambda x, _: F.silu(x), 0.0, math.sqrt(2)),
}


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """clamp(gain * act(x + bias)).

    x: any shape; bias: [x.shape[dim]]. alpha: slope parameter of 'lrelu'. gain None takes the
    activation's own. clamp: bound on the magnitude of the result. Returns a tensor like x, which
    may be x itself if nothing is asked of it; differentiable any number of times.
    Raises KeyError for an unknown activation.
    """
    activation = ACTIVATIONS[act]
    alpha = activation.default_alpha if alpha is None else alpha
    gain = activation.default_gain if gain is None else gain
    if bias is not None:
        bias = bias.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    slope = {"relu": 0.0, "lrelu": alpha}.get(act, -1)
    if slope >= 0 and gain > 0:
        return _TwoSlopes.apply(x, bias, Bend(slope, gain, clamp))
    return bias_act_formula(x, bias, act, alpha, gain, clamp)


def bias_act_formula(
    x: Tensor, bias: Tensor | None, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """`bias_act` with nothing left to choose, and a bias that broadcasts: the twin of the rest."""
    x = x if bias is None else x + bias
    x = ACTIVATIONS[act].function(x, alpha)
    x = x if gain == 1 else x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


class Bend(NamedTuple):
    """The function clamp(gain * x) above 0 and clamp(gain * slope * x) below; slope, gain >= 0."""

    slope: float
    gain: float
    clamp: float | None


class _TwoSlopes(torch.autograd.Function):
    """Bias and bend: one new tensor in the forward pass, which is all that it saves.

    gain * bend(x + b) = bend(gain * x + gain * b), so a single pass adds and scales. The sign and
    size of the result tell the derivative.
    """

    @staticmethod
    def forward(ctx, x, bias, bend):
        y = _bend(x, bias, bend)
        ctx.save_for_backward(y)
        ctx.bend, ctx.bias_shape = bend, None if bias is None else bias.shape
        return y

    @staticmethod
    def backward(ctx, d_y):
        d_x = _Derivative.apply(d_y, ctx.saved_tensors[0], ctx.bend)
        d_bias = d_x.sum_to_size(ctx.bias_shape) if ctx.needs_input_grad[1] else None
        return d_x, d_bias, None


class _Derivative(torch.autograd.Function):
    """gradient x derivative of the bend where its value is y: linear, so its own derivative."""

    @staticmethod
    def forward(ctx, gradient, y, bend):
        ctx.save_for_backward(y)
        ctx.bend = bend
        return _bend_derivative(gradient, y, bend)

    @staticmethod
    def backward(ctx, d_result):
        return _Derivative.apply(d_result, ctx.saved_tensors[0], ctx.bend), None, None


def _bend(x: Tensor, bias: Tensor | None, bend: Bend) -> Tensor:
    library = _library(x)
    if library is not None and cuda.is_dense(x):
        y = torch.empty_like(x)
        dim = 0 if bias is None else max(range(x.ndim), key=lambda i: bias.shape[i])
        bias = None if bias is None else bias.contiguous()
        sizes = (x.numel(), x.stride(dim), x.shape[dim])
        cuda.launch(
            library.bias_act_forward,
            x.device,
            cuda.TYPES[x.dtype],
            *cuda.pointers(x, bias, y),
            *map(ctypes.c_int64, sizes),
            *_constants(bend),
        )
        return y
    y = x * bend.gain if bias is None else torch.add(bias * bend.gain, x, alpha=bend.gain)
    F.leaky_relu_(y, bend.slope)
    return y if bend.clamp is None else y.clamp_(-bend.clamp, bend.clamp)


def _bend_derivative(gradient: Tensor, y: Tensor, bend: Bend) -> Tensor:
    library = _library(y)
    if library is not None and cuda.is_dense(y):
        if gradient.stride() != y.stride():
            gradient = torch.empty_like(y).copy_(gradient)
        result = torch.empty_like(y)
        cuda.launch(
            library.bias_act_derivative,
            y.device,
            cuda.TYPES[y.dtype],
            *cuda.pointers(gradient, y, result),
            ctypes.c_int64(y.numel()),
            *_constants(bend),
        )
        return result
    result = torch.ops.aten.leaky_relu_backward(gradient, y, bend.slope, True).mul_(bend.gain)
    if bend.clamp is None:
        return result
    return torch.ops.aten.hardtanh_backward(result, y, -bend.clamp, bend.clamp)


def _constants(bend: Bend) -> list[ctypes.c_double]:
    clamp = math.inf if bend.clamp is None else bend.clamp
    return [ctypes.c_double(value) for value in (bend.slope, bend.gain, clamp)]


def _library(x: Tensor) -> ctypes.CDLL | None:
    """Stock torch is the implementation on the CPU."""
    if x.device.type != "cuda" or x.dtype not in cuda.TYPES or x.numel() == 0:
        return None
    return kernels.load("bias_act", x.device)
