"""Running mean and spread of whatever training reports, over a tick and all processes.

Nothing is read back from the device until `collect`, so reporting costs no synchronisation.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import distributed


class Stat(NamedTuple):
    """`number` of values reported, their mean, and their standard deviation."""

    number: int
    mean: float
    std: float


class StatsCollector:
    """Adds up count, sum and sum of squares of each named quantity."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self._moments: dict[str, Tensor] = {}

    def report(self, name: str, values: Tensor | float) -> None:
        """Count every element of `values`."""
        if isinstance(values, Tensor):
            values = values.detach().to(self.device, non_blocking=True)
        else:
            values = torch.full((1,), float(values), device=self.device)
        values = values.flatten().double()
        count = values.new_full((), values.numel())
        moments = torch.stack([count, values.sum(), values.square().sum()])
        previous = self._moments.get(name)
        self._moments[name] = moments if previous is None else previous + moments

    def collect(self) -> dict[str, Stat]:
        """What all processes, with the same names in each, reported since the last call."""
        names = sorted(self._moments)
        if not names:
            return {}
        total = distributed.all_reduce_sum(torch.stack([self._moments[name] for name in names]))
        self._moments = {}
        return {name: _stat(*row) for name, row in zip(names, total.tolist(), strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """What has been reported and not yet collected; as for `collect`, all processes call it.

        Complete on the first.
        """
        names = sorted(self._moments)
        moments = torch.zeros(len(names), 3, dtype=torch.float64)
        for row, name in zip(moments, names, strict=True):
            row.copy_(self._moments[name])
        return {"names": names, "moments": distributed.gather_on_first(moments)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back this process's part of a `state_dict` that the first one saved.

        Of a state of more processes, each takes several parts; of fewer, some take none.
        """
        own = torch.zeros(len(state["names"]), 3, dtype=torch.float64)
        for part in state["moments"][distributed.rank() :: distributed.world_size()]:
            own += part
        self._moments = dict(zip(state["names"], own.to(self.device), strict=True))


def _stat(count: float, total: float, squares: float) -> Stat:
    mean = total / count
    return Stat(int(count), mean, math.sqrt(max(squares / count - mean**2, 0)))
