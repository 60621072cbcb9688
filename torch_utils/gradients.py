"""Gradients averaged over processes while the backward pass still computes others."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from .distributed import world_size

# Large enough to hide a network's latency, small enough for the first to leave early.
BUCKET_BYTES = 25 * 2**20


class GradientAverager:
    """Replaces gradients by their means over processes, in messages of about `bucket_bytes`.

    A message leaves as soon as all of its gradients are there. Which ones a phase of training
    reaches is known from the last time; they must be the same in all processes.

    Attributes:
        bytes_averaged: size of all gradients so far. A ring sends and receives twice as much less
            a share of 1 / `world_size`.
    """

    def __init__(self, bucket_bytes: int = BUCKET_BYTES):
        self.bytes_averaged = 0
        self._bucket_bytes = bucket_bytes
        self._plans: dict[str, list[list[Tensor]]] = {}

    def backward(
        self, loss: Tensor, parameters: Sequence[Tensor], phase: str, last: bool = True
    ) -> None:
        """Add the gradients of a loss; with the last one of a phase, take the means of the sums."""
        if not last or world_size() == 1:
            loss.backward(inputs=parameters)
            return
        plan = self._plans.get(phase, [])
        messages = _Messages(plan)
        with messages.listening():
            loss.backward(inputs=parameters)
        reached = [p for p in parameters if p.grad is not None]
        self.bytes_averaged += messages.finish(reached)
        if len(reached) != sum(map(len, plan)) or not messages.as_planned:
            self._plans[phase] = list(self._buckets(reached))

    def _buckets(self, parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Parts of a list, from its end, since a backward pass begins there."""
        bucket: list[Tensor] = []
        for parameter in reversed(parameters):
            if bucket and sum(map(_size, bucket)) + _size(parameter) > self._bucket_bytes:
                yield bucket[::-1]
                bucket = []
            bucket.append(parameter)
        if bucket:
            yield bucket[::-1]


class _Messages:
    """Those of one backward pass, sent in the same order by all processes."""

    def __init__(self, plan: Sequence[list[Tensor]]):
        self.as_planned = True
        self._plan = plan
        self._missing = [{id(p) for p in bucket} for bucket in plan]
        self._place = {id(p): number for number, bucket in enumerate(plan) for p in bucket}
        self._next = 0
        self._sent: list[tuple[list[Tensor], Tensor, dist.Work]] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        parameters = [p for bucket in self._plan for p in bucket]
        hooks = [p.register_post_accumulate_grad_hook(self._arrived) for p in parameters]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _arrived(self, parameter: Tensor) -> None:
        self._missing[self._place[id(parameter)]].discard(id(parameter))
        while self._next < len(self._plan) and not self._missing[self._next]:
            self._send(self._plan[self._next])
            self._next += 1

    def finish(self, reached: Sequence[Tensor]) -> int:
        """Send what is left, and wait for all. Returns the bytes of all gradients."""
        for bucket in self._plan[self._next :]:
            self._send([p for p in bucket if p.grad is not None])
        unplanned = [p for p in reached if id(p) not in self._place]
        self.as_planned = not unplanned
        self._send(unplanned)
        return sum(self._receive(*message) for message in self._sent)

    def _send(self, parameters: list[Tensor]) -> None:
        gradients = list(_gradients(parameters))
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            work = dist.all_reduce(flat, async_op=True)
            assert work is not None  # this process is one of the group's
            self._sent.append((parameters, flat, work))

    def _receive(self, parameters: list[Tensor], flat: Tensor, work: dist.Work) -> int:
        work.wait()
        flat.div_(world_size())
        gradients = list(_gradients(parameters))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return flat.nbytes


def _gradients(parameters: Iterable[Tensor]) -> Iterator[Tensor]:
    return (p.grad for p in parameters if p.grad is not None)


def _size(parameter: Tensor) -> int:
    return parameter.nbytes
