"""Adam as StyleGAN2 runs it beside lazy regularization, and what keeps it from stepping."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.config import OptimConfig


def adam(network: nn.Module, lr: float, optim: OptimConfig, every: int) -> torch.optim.Adam:
    """Adam, slowed down a little to make room for a regularizer that steps every `every` steps.

    StyleGAN2, appendix B: lr * c and beta^c with c = k / (k + 1).
    """
    c = every / (every + 1)
    parameters = [p for p in network.parameters() if p.requires_grad]
    betas = (optim.beta1**c, optim.beta2**c)
    return torch.optim.Adam(parameters, lr=lr * c, betas=betas, eps=optim.eps, fused=True)


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Step, and free the gradients: the other network's phases need their memory."""
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def with_own_rates(part: Any, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's saved state, but with the learning rates of this run; others as they are."""
    if not isinstance(part, torch.optim.Optimizer):
        return state
    own_groups = part.state_dict()["param_groups"]
    groups = [
        own | {"params": saved["params"]}
        for own, saved in zip(own_groups, state["param_groups"], strict=True)
    ]
    return {"state": state["state"], "param_groups": groups}


def first_non_finite(terms: Sequence[Mapping[str, Tensor]], parts: Mapping[str, Any]) -> str:
    """The first loss term, else the first gradient, that is not finite in this process.

    Args:
        terms: of the micro-batches, by name.
        parts: of the trainer; those that are networks count.
    """
    for name, values in (item for part in terms for item in part.items()):
        if not values.isfinite().all():
            return f"loss term {name}"
    for network in (part for part in parts.values() if isinstance(part, nn.Module)):
        for name, parameter in network.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                return f"gradient of {type(network).__name__}.{name}"
    return "a gradient in another process"


@torch.no_grad()
def follow(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Move an exponential moving average of weights by one step; buffers are copied."""
    torch._foreach_lerp_(list(averaged.parameters()), list(current.parameters()), weight=1 - decay)
    torch._foreach_copy_(list(averaged.buffers()), list(current.buffers()))
