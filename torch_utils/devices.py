"""The choice of a device and of what it computes in, in one place."""

from typing import Any

import psutil
import torch
from torch import Tensor

from dnnlib import UserError

SECONDS_OF_LOOKING = 0.3
# Activations of networks by precision; None: those of the weights.
INNER_DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


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


def select_precision(choice: str, device: torch.device) -> str:
    """What networks compute in: 'fp32', 'fp16', 'bf16', or 'auto'.

    'auto' is fp16 on CUDA, as published, and bf16 on a CPU that has instructions for it.
    """
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "fp16"
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in old torch
    return "bf16" if known.get("avx512_bf16") else "fp32"


def find_shared_cores(device: torch.device) -> list[str]:
    """Look for a moment whether other processes leave cores for this one's threads.

    Returns:
        A line for the log where they do not.
    """
    threads, cores = torch.get_num_threads(), psutil.cpu_count() or 1
    if device.type != "cpu" or threads == 1:
        return []
    busy = psutil.cpu_percent(SECONDS_OF_LOOKING) / 100 * cores
    if busy < 0.5 or busy + threads < cores + 0.5:
        return []
    return [
        f"other processes keep {busy:.1f} of {cores} cores busy: {threads} threads would wait for "
        f"each other, up to seconds a step; set OMP_NUM_THREADS={max(1, int(cores - busy))}"
    ]


def restore_threads(threads: int, device: torch.device) -> list[str]:
    """Compute with so many threads on the CPU, where sums are rounded as threads share them.

    Returns:
        A line for the log where there were more or fewer.
    """
    now = torch.get_num_threads()
    if device.type != "cpu" or now == threads:
        return []
    torch.set_num_threads(threads)
    return [f"{threads} threads as before, not {now}, for the same results"]
