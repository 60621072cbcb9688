"""The states of all processes' random numbers, kept and restored."""

import torch
from torch import Tensor

from torch_utils import distributed


def gather(device: torch.device) -> dict[str, list[Tensor] | None]:
    """The states of all processes, on the first one, None on others; to be called by all."""
    states = {"cpu": distributed.gather_on_first(torch.get_rng_state())}
    if device.type == "cuda":
        states["cuda"] = distributed.gather_on_first(torch.cuda.get_rng_state(device))
    return states


def restore(states: dict[str, list[Tensor]], device: torch.device, seed: int) -> list[str]:
    """Take up this process's state from what `gather` returned.

    Args:
        states: of the first process.
        device: whose state is restored, if there is one of its kind.
        seed: to begin with where there were more or fewer processes; another for each.

    Returns:
        A line for the log where random numbers differ from those of an unbroken run.
    """
    rank, before, now = distributed.rank(), len(states["cpu"]), distributed.world_size()
    if before != now:
        torch.manual_seed(seed)
        return [
            f"{before} process(es) wrote the checkpoint and {now} resume it: weights and "
            "optimizers are the same, random numbers differ from those of an unbroken run"
        ]
    torch.set_rng_state(states["cpu"][rank])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"][rank], device)
    return []
