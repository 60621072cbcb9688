"""Bias, activation, gain, clamp: the tail of every layer, in that order."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


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
    activation's own. clamp: bound on the magnitude of the result. Returns a new tensor like x.
    Raises KeyError for an unknown activation.
    """
    activation = ACTIVATIONS[act]
    alpha = activation.default_alpha if alpha is None else alpha
    gain = activation.default_gain if gain is None else gain
    if bias is not None:
        x = x + bias.to(x.dtype).reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = activation.function(x, alpha)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
