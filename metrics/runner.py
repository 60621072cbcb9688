"""Work on numbered items, shared among processes, with the same result however many there are."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from dnnlib import UserError
from torch_utils import distributed

BATCH = 16  # part of the results: a discriminator compares the images of a batch


class Runner(NamedTuple):
    """device: where this process computes. verbose: the first process shows progress bars."""

    device: torch.device
    verbose: bool = False

    def for_each(self, work: Callable[[range], None], count: int, label: str) -> None:
        """Call work(indices) for this process's batches of range(count)."""
        starts = range(0, count, BATCH)[distributed.rank() :: distributed.world_size()]
        hidden = None if self.verbose and distributed.rank() == 0 else True  # None: off a terminal
        share = sum(min(BATCH, count - start) for start in starts)
        with (
            self.raise_together(),
            tqdm(total=share, desc=label, unit="img", disable=hidden, leave=False) as bar,
        ):
            for start in starts:
                indices = range(start, min(start + BATCH, count))
                work(indices)
                bar.update(len(indices))

    def map(self, work: Callable[[range], Tensor], count: int, label: str) -> Tensor:
        """The rows work(indices) [B, ...] of all range(count), in order, on the CPU."""
        parts: dict[int, Tensor] = {}

        def keep(indices: range) -> None:
            parts[indices.start] = work(indices).cpu()

        self.for_each(keep, count, label)
        if distributed.world_size() > 1:
            everyone: list[dict[int, Tensor]] = [{}] * distributed.world_size()
            dist.all_gather_object(everyone, parts)
            parts = {start: part for theirs in everyone for start, part in theirs.items()}
        return torch.cat([parts[start] for start in sorted(parts)])

    @contextlib.contextmanager
    def raise_together(self) -> Iterator[None]:
        """An error inside, in any process, is raised in all; else the others would wait forever."""
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        if distributed.any_process(failure is not None):
            reason = distributed.first_message(None if failure is None else str(failure))
            raise failure or UserError(reason)
