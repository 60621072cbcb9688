"""Operations on the hot path, each with a plain torch twin of the same signature."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from . import kernels
from .bias_act import bias_act
from .kernels import get_mode, set_mode, using
from .rays import blend, importance_depths, points_on_rays
from .triplane_render import native_library, triplane_render
from .upfirdn2d import resample_filter, upfirdn2d

__all__ = [
    "bias_act",
    "blend",
    "get_mode",
    "importance_depths",
    "points_on_rays",
    "replaced",
    "resample_filter",
    "set_mode",
    "status",
    "triplane_render",
    "upfirdn2d",
    "using",
]


def status(device: torch.device | str = "cpu") -> str:
    """One line for the log: which implementations are active there. Builds those that can be."""
    device = torch.device(device)
    on_cpu = device.type == "cpu"
    native = f"native (cpu, {kernels.cpu_capability().lower()})" if on_cpu else "native (cuda)"
    loaded = {"triplane_render": native_library(device)}
    # The others are, there, stock torch in its fastest formulation.
    for name in ("rays", "bias_act", "upfirdn2d"):
        has_kernel = name != ("upfirdn2d" if on_cpu else "rays")
        loaded[name] = kernels.load(name, device) if has_kernel else None
    return "ops: " + ", ".join(
        f"{name} {native if lib else 'torch'}" for name, lib in loaded.items()
    )


@contextlib.contextmanager
def replaced(**operations: Callable[..., Tensor]) -> Iterator[None]:
    """Within, networks call these instead of the operations of the same names.

    For comparisons with other implementations, and to watch what passes through.

    Raises:
        KeyError: for the name of no operation.
    """
    before = {name: globals()[name] for name in operations}
    globals().update(operations)
    try:
        yield
    finally:
        globals().update(before)
