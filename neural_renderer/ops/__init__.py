"""The rasterizer's kernels: a torch reference, and beside it native ones of the same signatures."""

from types import ModuleType

import torch

from . import native, reference
from .build import parse_mode
from .types import Fragments, View

__all__ = ["Fragments", "View", "select"]


def select(choice: str | None, device: torch.device) -> ModuleType:
    """Choose the module whose functions do the work on a device: `reference` or `native`.

    Args:
        choice: 'auto' (native where it can be built, else torch), 'torch' or 'native'; None asks
            the environment variable NEURAL_RENDERER_OPS, whose default is 'auto'.
        device: where the tensors are.

    Raises:
        ValueError: for another choice.
        RuntimeError: if 'native' is asked for and cannot be had.
    """
    mode = parse_mode(choice) if choice else native.KERNELS.mode()
    return native if native.available(device, mode) else reference
