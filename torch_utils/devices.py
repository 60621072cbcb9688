"""The choice of a device, in one place."""

from typing import Any

import torch
from torch import Tensor

from dnnlib import UserError


def select_device(choice: str) -> torch.device:
    """The device of this process: 'cpu', 'cuda', or 'auto' for CUDA where there is any.

    With several processes on one machine, each has set its own current CUDA device.

    Raises:
        UserError: for 'cuda' where PyTorch has none.
    """
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    if choice == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def constant(numbers: Any, like: Tensor) -> Tensor:
    """A few numbers as a tensor of the type and the device of another.

    Unlike `torch.tensor` with a device, this does not wait until a GPU has done its work.
    """
    return torch.tensor(numbers, dtype=like.dtype).to(like.device, non_blocking=True)
