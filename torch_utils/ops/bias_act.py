"""Bias, activation, gain, clamp: the tail of every layer, in that order."""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neural_renderer.ops.registration import is_traced, register

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
    """clamp(gain * act(x + bias)), differentiable any number of times.

    Args:
        x: a tensor of any shape.
        bias: [x.shape[dim]].
        dim: the dimension along which the bias lies.
        act: a name in `ACTIVATIONS`.
        alpha: slope below 0 of 'lrelu'; None takes the default.
        gain: factor of the result; None takes the activation's own.
        clamp: bound on the magnitude of the result.

    Returns:
        A tensor like x, which may be x itself if nothing is asked of it.

    Raises:
        KeyError: for an unknown activation.
    """
    activation = ACTIVATIONS[act]
    alpha = activation.default_alpha if alpha is None else alpha
    gain = activation.default_gain if gain is None else gain
    if bias is not None:
        bias = bias.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    clamp = None if clamp is None else _rounded(clamp, x.dtype)
    slope = {"relu": 0.0, "lrelu": alpha}.get(act, -1)
    # A compiler fuses the formula; it cannot look into a kernel, for which the operation stands.
    if slope >= 0 and gain > 0 and (not is_traced(x) or _has_kernel(x)):
        return bend(x, bias, slope, gain, clamp)
    return bias_act_formula(x, bias, act, alpha, gain, clamp)


_MANTISSA_BITS = {torch.float16: 11, torch.bfloat16: 8}


def _rounded(clamp: float, dtype: torch.dtype) -> float:
    """As values are: those that were clamped are known by being equal to it (`bend_derivative`)."""
    if dtype not in _MANTISSA_BITS or math.isinf(clamp):
        return clamp
    mantissa, exponent = math.frexp(clamp)
    bits = _MANTISSA_BITS[dtype]
    return math.ldexp(round(math.ldexp(mantissa, bits)), exponent - bits)


def bias_act_formula(
    x: Tensor, bias: Tensor | None, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """`bias_act` with nothing left to choose, and a bias that broadcasts: the twin of the rest."""
    x = x if bias is None else x + bias
    x = ACTIVATIONS[act].function(x, alpha)
    x = x if gain == 1 else x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _bend(x: Tensor, bias: Tensor | None, slope: float, gain: float, clamp: float | None) -> Tensor:
    """clamp(gain * y) of y = x + bias above 0, clamp(gain * slope * y) below; slope, gain >= 0.

    gain * bend(x + b) = bend(gain * x + gain * b), so a single pass adds and scales.
    """
    library = _library(x)
    if library is not None:
        return _launch_forward(library, x, bias, _constants(slope, gain, clamp))
    return _bend_torch(x, bias, slope, gain, clamp)


def _bend_torch(
    x: Tensor, bias: Tensor | None, slope: float, gain: float, clamp: float | None
) -> Tensor:
    y = x * gain if bias is None else torch.add(bias * gain, x, alpha=gain)
    F.leaky_relu_(y, slope)
    return y if clamp is None else y.clamp_(-clamp, clamp)


def _bend_derivative(
    gradient: Tensor, y: Tensor, slope: float, gain: float, clamp: float | None
) -> Tensor:
    """Gradient x derivative of the bend where its value is y, whose sign and size tell it."""
    library = _library(y)
    if library is not None:
        return _launch_derivative(library, gradient, y, _constants(slope, gain, clamp))
    return _bend_derivative_torch(gradient, y, slope, gain, clamp)


def _bend_derivative_torch(
    gradient: Tensor, y: Tensor, slope: float, gain: float, clamp: float | None
) -> Tensor:
    # Not public functions, but one pass each; `torch.where` takes twice to ten times as long.
    result = torch.ops.aten.leaky_relu_backward(gradient, y, slope, True).mul_(gain)
    if clamp is None:
        return result
    return torch.ops.aten.hardtanh_backward(result, y, -clamp, clamp)


def _launch_forward(
    library: ctypes.CDLL, x: Tensor, bias: Tensor | None, constants: list[ctypes.c_double]
) -> Tensor:
    y = torch.empty_like(x)
    step, size = x.numel(), 1  # element i of the memory has bias i // step % size
    if bias is not None and bias.numel() > 1:
        dim = max(range(x.ndim), key=list(bias.shape).__getitem__)
        step, size = x.stride(dim), x.shape[dim]
    bias = None if bias is None else bias.contiguous()
    sizes = map(ctypes.c_int64, (x.numel(), step, size))
    _launch(library.bias_act_forward, y, (x, bias, y), *sizes, *constants)
    return y


def _launch_derivative(
    library: ctypes.CDLL, gradient: Tensor, y: Tensor, constants: list[ctypes.c_double]
) -> Tensor:
    if gradient.stride() != y.stride():
        gradient = torch.empty_like(y).copy_(gradient)
    result = torch.empty_like(y)
    tensors = gradient, y, result
    _launch(library.bias_act_derivative, y, tensors, ctypes.c_int64(y.numel()), *constants)
    return result


def _launch(kernel: Any, like: Tensor, tensors: Sequence[Tensor | None], *numbers: Any) -> None:
    pointers = cuda.pointers(*tensors)
    if cuda.is_gpu(like.device):
        cuda.launch(kernel, like.device, cuda.TYPES[like.dtype], *pointers, *numbers)
    else:
        kernel(like.dtype == torch.bfloat16, *pointers, *numbers, torch.get_num_threads())


def _constants(slope: float, gain: float, clamp: float | None) -> list[ctypes.c_double]:
    return [ctypes.c_double(v) for v in (slope, gain, math.inf if clamp is None else clamp)]


_CPU_TYPES = (torch.float32, torch.bfloat16)


def _suits(x: Tensor) -> bool:
    on_gpu = cuda.is_gpu(x.device)
    types = cuda.TYPES if on_gpu else _CPU_TYPES
    return (on_gpu or x.device.type == "cpu") and x.dtype in types and x.numel() > 0


def _has_kernel(x: Tensor) -> bool:
    """Whether there is one for such a tensor, which may lack values."""
    return _suits(x) and kernels.available("bias_act", x.device)


def _library(x: Tensor) -> ctypes.CDLL | None:
    """The compiled kernels for a tensor, or None for plain torch."""
    return kernels.load("bias_act", x.device) if _suits(x) and cuda.is_dense(x) else None


def _keep_for_bend(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, bias, *ctx.constants = inputs
    ctx.bias_shape = None if bias is None else bias.shape
    ctx.save_for_backward(output)


def _bend_backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
    d_x = bend_derivative(d_y, ctx.saved_tensors[0], *ctx.constants)
    d_bias = d_x.sum_to_size(ctx.bias_shape) if ctx.needs_input_grad[1] else None
    return d_x, d_bias, None, None, None


def _keep_for_derivative(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, y, *ctx.constants = inputs
    ctx.save_for_backward(y)


def _derivative_backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
    """The derivative is linear in the gradient; in y it is constant but for jumps."""
    d_gradient = bend_derivative(d_result, ctx.saved_tensors[0], *ctx.constants)
    return d_gradient, None, None, None, None


bend = register(
    "pof3d::bend",
    _bend,
    fake=_bend_torch,
    setup_context=_keep_for_bend,
    backward=_bend_backward,
)
bend_derivative = register(
    "pof3d::bend_derivative",
    _bend_derivative,
    fake=_bend_derivative_torch,
    setup_context=_keep_for_derivative,
    backward=_derivative_backward,
)
