"""Units of a network that lie on a kink of their activation.

A leaky ReLU bends at zero. Where its input is zero up to rounding, two correct implementations may
take different slopes: no output shows it, but the gradients of all layers below differ. To compare
gradients with another implementation's, such units can be found and put on the other side.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torch_utils import ops
from torch_utils.ops import bias_act

ON_KINK = 5e-6  # distance in units of the layer's RMS: some forty roundings of float32


class Kink(NamedTuple):
    """Where a piecewise linear function bends, and its slopes there."""

    position: float
    slope_below: float
    slope_above: float


@dataclasses.dataclass
class Unit:
    """An activation that lies on a kink.

    call: the number of its bias_act since the watch began. index: in that call's flattened input.
    distance: from the kink, in units of the layer's RMS. move: what to add to its input to bring it
    to the other side; jump: by how much the slope differs there. change: what the gradient at its
    input would gain there; share: the same relative to the gradient of the whole layer. The last
    two are known after the backward pass.
    """

    layer: str
    call: int
    index: int
    channel: int
    distance: float
    move: float
    jump: float
    change: float = 0.0
    share: float = 0.0


class KinkWatch:
    """While entered, collects the units that lie on kinks; or, given such units, moves them to the
    other side. To be entered once."""

    def __init__(self, networks: Iterable[nn.Module], moved: Sequence[Unit] = ()):
        self.units: list[Unit] = []
        self._networks = networks
        self._moved = moved
        self._modules: list[str] = []  # those being executed, innermost last
        self._calls = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "KinkWatch":
        self._undo.enter_context(ops.replaced(bias_act=self._bias_act))
        for network in self._networks:
            for name, module in network.named_modules():
                for hook in (
                    module.register_forward_pre_hook(partial(self._entered, name)),
                    module.register_forward_hook(self._left),
                ):
                    self._undo.callback(hook.remove)
        return self

    def __exit__(self, *_) -> None:
        self._undo.close()

    def _entered(self, name: str, *_) -> None:
        self._modules.append(name)

    def _left(self, *_) -> None:
        self._modules.pop()

    def _bias_act(
        self, x: Tensor, bias: Tensor | None = None, *, dim: int = 1, **options
    ) -> Tensor:
        if bias is not None:
            x = x + bias.to(x.dtype).reshape([-1] + [1] * (x.ndim - 1 - dim % x.ndim))
        call, self._calls = self._calls, self._calls + 1
        if self._moved:
            moves = torch.zeros_like(x).flatten()
            for unit in self._moved:
                if unit.call == call:
                    moves[unit.index] = unit.move
            return bias_act(x + moves.view_as(x), dim=dim, **options)
        y = bias_act(x, dim=dim, **options)
        units = list(self._units_of(x.detach(), call, dim, kinks_of(**options)))
        self.units += units
        if units and y.requires_grad:
            y.register_hook(partial(self._measure, units))
        return y

    def _units_of(self, x: Tensor, call: int, dim: int, kinks: list[Kink]) -> Iterator[Unit]:
        values = x.flatten()
        scale = values.square().mean().sqrt().item()
        for position, below, above in kinks:
            offsets = values - position
            for index in (offsets.abs() < ON_KINK * scale).nonzero().flatten().tolist():
                offset = offsets[index].item()
                side = 1 if offset > 0 else -1
                yield Unit(
                    layer=self._modules[-1],
                    call=call,
                    index=index,
                    channel=int(np.unravel_index(index, x.shape)[dim]),
                    distance=abs(offset) / scale,
                    move=-side * ON_KINK * scale - offset,
                    jump=side * (below - above),
                )

    @staticmethod
    def _measure(units: list[Unit], gradient: Tensor) -> None:
        norm = gradient.norm().item()
        for unit in units:
            unit.change = gradient.flatten()[unit.index].item() * unit.jump
            unit.share = abs(unit.change) / (norm or 1.0)


def kinks_of(clamp: float | None = None, **options) -> list[Kink]:
    """The kinks of bias_act(x, **options) with an activation that is linear on each side of 0."""
    above, below = bias_act(torch.tensor([[1.0], [-1.0]]), **options).abs().flatten().tolist()
    kinks = [] if below == above else [Kink(0.0, below, above)]
    if clamp is not None:
        kinks += [Kink(-clamp / below, 0.0, below), Kink(clamp / above, above, 0.0)]
    return kinks
