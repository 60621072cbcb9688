"""The rasteriser's kernels: a torch reference, and beside it a native op of the same signatures."""

import os
from types import ModuleType

import torch

from . import native, reference
from .types import Fragments, View

__all__ = ["Fragments", "View", "select"]


def select(choice: str | None, device: torch.device) -> ModuleType:
    """The module whose functions do the work on `device`: `reference` or `native`.

    `choice` is 'auto' (native where it can be built, else torch), 'torch' or 'native'; None asks
    the environment variable NEURAL_RENDERER_OPS, whose default is 'auto'.

    Raises ValueError for another choice, RuntimeError if 'native' is asked for and cannot be had.
    """
    choice = choice or os.environ.get("NEURAL_RENDERER_OPS") or "auto"
    if choice not in ("auto", "torch", "native"):
        raise ValueError(f"ops must be 'auto', 'torch' or 'native', not {choice!r}")
    if choice == "torch":
        return reference
    problem = native.problem(device)
    if choice == "native" and problem:
        raise RuntimeError(f"the native op cannot be used: {problem}")
    return reference if problem else native
