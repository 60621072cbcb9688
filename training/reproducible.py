"""What results depend on beside weights: random states and the number of threads."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torch_utils import distributed


def state(device: torch.device) -> dict[str, Any]:
    """Of all processes, complete on the first; to be called by all of them."""
    random = {"cpu": distributed.gather_on_first(torch.get_rng_state())}
    if device.type == "cuda":
        random["cuda"] = distributed.gather_on_first(torch.cuda.get_rng_state(device))
    return {"random": random, "threads": torch.get_num_threads()}


def restore(state: Mapping[str, Any], device: torch.device, new_seed: int) -> list[str]:
    """Take back this process's part of a `state`.

    Args:
        state: as the first process had it.
        device: where this process computes.
        new_seed: where another number of processes made it; each adds its rank.

    Returns:
        Lines for the log, about what is not as it was.
    """
    threads = _restore_threads(state["threads"], device)
    return threads + _restore_random(state["random"], device, new_seed)


def _restore_random(
    random: Mapping[str, list[Tensor]], device: torch.device, new_seed: int
) -> list[str]:
    rank, before, now = distributed.rank(), len(random["cpu"]), distributed.world_size()
    if before != now:
        torch.manual_seed(new_seed + rank)
        return [
            f"{before} process(es) wrote the checkpoint and {now} resume it: weights and "
            "optimizers are the same, random numbers differ from those of an unbroken run"
        ]
    torch.set_rng_state(random["cpu"][rank])
    if device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"][rank], device)
    return []


def _restore_threads(threads: int, device: torch.device) -> list[str]:
    """On the CPU, sums are rounded as they are shared among threads."""
    now = torch.get_num_threads()
    if device.type != "cpu" or now == threads:
        return []
    torch.set_num_threads(threads)
    return [f"{threads} threads as before, not {now}, for the same results"]
