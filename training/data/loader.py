"""The order in which training takes photographs, and their batches.

Batches are loaded by threads: Pillow decodes and resizes outside Python's lock, and threads need
neither shared memory, which containers have little of, nor copies of the data set, and cannot die
alone.
"""

import collections
import itertools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.data.archive import UnreadableError
from training.data.dataset import ImageDataset

BATCHES_AHEAD = 2  # that each thread has loaded or is loading
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 600.0  # without a single image: the storage does not answer


class InfiniteOrder:
    """Indices for ever: epoch e is a permutation seeded by (seed, e).

    Rank r of `world_size` gets the positions start + r, start + r + world_size, …; the order is a
    function of seed and position alone, so a run continues from any `start`.
    """

    def __init__(
        self, size: int, seed: int = 0, rank: int = 0, world_size: int = 1, start: int = 0
    ):
        self._size, self._seed = size, seed
        self._first, self._stride = start + rank, world_size

    def __iter__(self) -> Iterator[int]:
        current, order = -1, np.empty(0, dtype=np.int64)
        for position in itertools.count(self._first, self._stride):
            epoch, offset = divmod(position, self._size)
            if epoch != current:
                order = np.random.default_rng([self._seed, epoch]).permutation(self._size)
                current = epoch
            yield int(order[offset])


class Batch(NamedTuple):
    """images: uint8 [B, 3, R, R]. indices: int64 [B], which of the data set's they are."""

    images: Tensor
    indices: Tensor


def training_batches(
    dataset: ImageDataset,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Batch, None, None]:
    """Batches of one rank, for ever.

    The batches depend on neither the number of workers nor any random state, and leave PyTorch's
    global one alone.

    Args:
        dataset: the photographs.
        batch_size: B, of this rank.
        seed: of the order.
        start: images that all ranks together have consumed before.
        rank: of this process.
        world_size: number of processes.
        workers: threads that load batches ahead; 0 loads in the caller's.
        pin_memory: whether batches lie in memory from which a GPU copies by itself.
        stop: asked now and then while a batch does not come.

    Raises:
        UnreadableError: where an image cannot be read (it names the file), or none comes for
            PATIENCE_SECONDS, or `stop` says so. The batches end with it.
    """
    order = iter(InfiniteOrder(len(dataset), seed, rank, world_size, start))
    numbers = (list(itertools.islice(order, batch_size)) for _ in itertools.count())
    batches = _Loader(dataset, workers, stop).batches(numbers) if workers else None
    for batch in batches or (_load(dataset, indices) for indices in numbers):
        yield Batch(batch.images.pin_memory(), batch.indices) if pin_memory else batch


def _load(
    dataset: ImageDataset, indices: list[int], on_image: Callable[[], None] = lambda: None
) -> Batch:
    size = dataset.resolution
    # Not torch.stack: each thread that calls it would start a team of threads of its own.
    images = np.empty((len(indices), 3, size, size), dtype=np.uint8)
    for place, index in enumerate(indices):
        images[place] = dataset[index].numpy()
        on_image()
    return Batch(torch.from_numpy(images), torch.tensor(indices))


class _Loader:
    """Threads that load batches ahead of their use."""

    def __init__(self, dataset: ImageDataset, workers: int, stop: Callable[[], bool]):
        self._dataset, self._workers, self._stop = dataset, workers, stop
        self._tasks: queue.SimpleQueue[tuple[list[int], Future[Batch]] | None] = queue.SimpleQueue()
        self._last_image = time.monotonic()

    def batches(self, numbers: Iterator[list[int]]) -> Iterator[Batch]:
        """The batches of these indices, in order; the threads end with the iterator."""
        for _ in range(self._workers):  # daemons: storage that hangs must not keep Python alive
            threading.Thread(target=self._work, daemon=True).start()
        ahead = collections.deque(
            self._submit(indices)
            for indices in itertools.islice(numbers, BATCHES_AHEAD * self._workers)
        )
        try:
            for indices in numbers:
                batch = self._wait(ahead.popleft())
                ahead.append(self._submit(indices))
                yield batch
        finally:
            for future in ahead:
                future.cancel()
            for _ in range(self._workers):
                self._tasks.put(None)

    def _submit(self, indices: list[int]) -> Future[Batch]:
        future: Future[Batch] = Future()
        self._tasks.put((indices, future))
        return future

    def _work(self) -> None:
        while task := self._tasks.get():
            indices, future = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(_load(self._dataset, indices, self._count_image))
            except BaseException as error:  # the one who waits raises it
                future.set_exception(error)

    def _count_image(self) -> None:
        self._last_image = time.monotonic()

    def _wait(self, future: Future[Batch]) -> Batch:
        since = time.monotonic()
        while True:
            try:
                return future.result(timeout=POLL_SECONDS)
            except TimeoutError:
                if future.done():  # an error of the storage, not of the clock
                    raise
            if self._stop():
                raise UnreadableError("stopped while waiting for photographs")
            if time.monotonic() - max(since, self._last_image) > PATIENCE_SECONDS:
                raise UnreadableError(
                    f"no photograph of {self._dataset.name} came for {PATIENCE_SECONDS:.0f} "
                    "seconds: does its storage answer? --workers 0 would show where it waits"
                )
