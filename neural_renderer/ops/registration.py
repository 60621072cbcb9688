"""Operations that torch can run, differentiate and trace, each from one definition."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter
from torch.utils._python_dispatch import _get_current_dispatch_mode

_PLAIN = (Tensor, Parameter)
P = ParamSpec("P")
R = TypeVar("R")


def is_traced(*inputs: Any) -> bool:
    """Whether inputs may lack values: torch.compile, torch.export, fake or meta tensors."""
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return True
    return any(isinstance(x, Tensor) and (type(x) not in _PLAIN or x.is_meta) for x in inputs)


def constant_when_traced(function: Callable[P, R]) -> Callable[P, R]:
    """Have a compiler call a function, and not look into it: its result is a constant.

    This is all that torch.compiler.assume_constant_result does, apart from importing the whole
    compiler, which takes two seconds.
    """
    function.__dict__["_dynamo_marked_constant"] = True
    return function


def register(
    name: str,
    forward: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    once: bool = False,
) -> Callable[..., Any]:
    """Make an operation of torch, NAMESPACE::NAME, that is its function when nobody traces it.

    torch.library's dispatch costs some 15 microseconds a call and again as many backward, more
    than an autograd function: so only calls under a tracer go through it.

    Args:
        name: 'namespace::name'.
        forward: computes the outputs; annotated, as `torch.library.custom_op` demands.
        fake: of the same signature: empty outputs of the right shapes and strides.
        setup_context: (ctx, inputs, output), see `torch.library.register_autograd`.
        backward: (ctx, *gradients), a gradient or None for each input. Without these two, the
            operation has no derivative.
        once: `backward` is not differentiable itself.

    Returns:
        A function of the signature of `forward`.
    """
    op = torch.library.custom_op(name, forward, mutates_args=())
    op.register_fake(fake)
    eager = forward
    if backward is not None and setup_context is not None:
        op.register_autograd(backward, setup_context=setup_context)
        eager_backward = once_differentiable(backward) if once else backward
        eager = _function(forward, setup_context, eager_backward)

    def call(*inputs: Any) -> Any:
        return op(*inputs) if is_traced(*inputs) else eager(*inputs)

    return call


def _function(
    forward: Callable[..., Any], setup_context: Callable[..., None], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """The same as an autograd function, in the older of its two forms, which is the faster."""

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = forward(*inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return backward(ctx, *gradients)

    return Eager.apply
