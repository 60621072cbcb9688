"""Several processes, one device each: start them, and keep their networks in step.

A process started by torchrun finds its place in the environment; `launch` starts processes itself.
Alone, every function here does nothing.
"""

import contextlib
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Imported later, by an optimizer, it would capture the group in default arguments; then Gloo's
# threads outlive the group's end, and may crash while Python shuts down.
import torch.distributed.nn
from torch import Tensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from dnnlib import EXIT_STATUS_BASE, StopSignals, UserError

GRACE_SECONDS = 10  # for the other processes to end when one has failed
FIRST_FAULT = "first-fault"  # file with the traceback of the process that failed first

T = TypeVar("T")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def launched_by_torchrun() -> bool:
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(function: Callable[..., T], processes: int, device: str, *args: Any) -> T:
    """Call function(*args) in `processes` processes that know each other; wait for all of them.

    device: 'cpu' or 'cuda'. Returns what the function returns in the first process (no tensors); in
    a process that torchrun started, what it returns there. Raises UserError when torchrun started
    another number of processes, when a process was killed, and the UserError of any process.
    """
    if launched_by_torchrun():
        started = int(os.environ["WORLD_SIZE"])
        if started != processes:
            raise UserError(
                f"torchrun started {started} processes, but --gpus says {processes}: "
                f"add --gpus {started}"
            )
        _join(int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), started, device, "env://")
        result = function(*args)
        dist.destroy_process_group()
        return result
    if processes == 1:
        return function(*args)
    return _spawn(function, processes, device, *args)


def _spawn(function: Callable[..., T], processes: int, device: str, *args: Any) -> T:
    with tempfile.TemporaryDirectory() as name, StopSignals() as stop:
        folder, results = Path(name), multiprocessing.get_context("spawn").SimpleQueue()
        arguments = (processes, device, folder, results, function, args)
        context = torch.multiprocessing.spawn(_work, arguments, nprocs=processes, join=False)
        stop.forward_to(context.pids())
        try:
            while not context.join(grace_period=GRACE_SECONDS):
                pass
        except (ProcessExitedException, ProcessRaisedException) as error:
            if stop.received:  # before there was anything to finish
                sys.exit(EXIT_STATUS_BASE + stop.received)
            for message in folder.glob("error-*"):
                raise UserError(message.read_text()) from error
            if isinstance(error, ProcessExitedException):
                raise UserError(f"{error}, the others were stopped: try --resume latest") from error
            if (fault := folder / FIRST_FAULT).exists():
                raise RuntimeError(fault.read_text()) from None
            raise
        return results.get()


def _work(index: int, processes: int, device: str, folder: Path, results, function, args) -> None:
    """What each spawned process does."""
    if device == "cpu":  # each process would take all cores otherwise
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    _join(index, index, processes, device, (folder / "store").as_uri())
    try:
        result = function(*args)
    except UserError as error:  # hand over the one line, not a traceback
        (folder / f"error-{index}").write_text(str(error))
        sys.exit(1)
    except Exception:  # the others fail too, as soon as they miss this one: the first one tells why
        with contextlib.suppress(FileExistsError), open(folder / FIRST_FAULT, "x") as file:
            file.write(f"process {index} failed:\n{traceback.format_exc()}")
        raise
    if index == 0:
        results.put(result)
    dist.destroy_process_group()  # not after an error: it would wait for those who still work


def _join(index: int, local_index: int, processes: int, device: str, meeting_point: str) -> None:
    if device == "cuda":
        torch.cuda.set_device(local_index)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting_point, rank=index, world_size=processes)


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns, or its UserError, in the first process: in all of them."""
    if world_size() == 1:
        return make()
    outcome: list[Any] = [None]
    if rank() == 0:
        try:
            outcome = [make()]
        except UserError as error:
            outcome = [error]
    dist.broadcast_object_list(outcome, device=torch.device("cpu"))
    if isinstance(outcome[0], UserError):
        raise outcome[0]
    return outcome[0]


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean over processes, in place."""
    return all_reduce_sum(tensor).div_(world_size())


def largest(number: int) -> int:
    """The largest of the numbers that the processes name; does not wait for a GPU's work."""
    if world_size() == 1:
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in at least one process; all learn the same."""
    return bool(largest(flag))


def first_message(message: str | None) -> str:
    """The message of the first process that has one; called by all, of whom at least one has."""
    messages: list[str | None] = [message]
    if world_size() > 1:
        messages = [None] * world_size()
        dist.all_gather_object(messages, message)
    return next(text for text in messages if text is not None)


def barrier() -> None:
    """Wait for all processes to come here."""
    largest(0)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over processes, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def gather_on_first(tensor: Tensor) -> list[Tensor] | None:
    """All processes' tensors, in main memory and of one shape, by rank; None on the others."""
    if world_size() == 1:
        return [tensor]
    found = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(found, tensor)
    return found if rank() == 0 else None
