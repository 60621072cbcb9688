"""Pictures made by many processes."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from dnnlib import UserError

T = TypeVar("T")


def in_processes(make: Callable[[int], T], count: int) -> Iterator[T]:
    """make(0), make(1), … of `count` in order, by as many processes as there are cores.

    Raises:
        UserError: when one of the processes was killed.
    """
    with ProcessPoolExecutor(min(os.cpu_count() or 1, count), initializer=_begin) as pool:
        try:
            yield from pool.map(make, range(count), chunksize=16)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that makes pictures was killed: is there enough memory?"
            ) from error


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who collects
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # threads inside the processes would only fight over the same cores
