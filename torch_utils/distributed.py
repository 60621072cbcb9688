"""Several processes, one device each: start them, and keep their networks in step.

A process started by torchrun finds its place in the environment; `launch` starts processes itself.
Alone, every function here does nothing.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dnnlib import StopSignals, UserError

T = TypeVar("T")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def launched_by_torchrun() -> bool:
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(function: Callable[..., T], processes: int, device: str, *args: Any) -> T | int | None:
    """Call function(*args) in `processes` processes that know each other; wait for all of them.

    device: 'cpu' or 'cuda'. A single process, or one that torchrun started, returns the function's
    result; started here, several return the signal that asked them to stop, or None. Raises
    UserError when torchrun started another number of processes, and the UserError of any process.
    """
    if launched_by_torchrun():
        started = int(os.environ["WORLD_SIZE"])
        if started != processes:
            raise UserError(f"torchrun started {started} processes, but --gpus says {processes}")
        with _group(int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"]), started, device, "env://"):
            return function(*args)
    if processes == 1:
        return function(*args)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, device, Path(folder), function, args)
        context = torch.multiprocessing.spawn(
            _spawned, arguments, nprocs=processes, join=False
        )
        with StopSignals(forward_to=context.pids()) as stop:
            try:
                while not context.join():
                    pass
            except torch.multiprocessing.ProcessExitedException as error:
                for message in Path(folder).glob("error-*"):
                    raise UserError(message.read_text()) from error
                raise
        return stop.received


def _spawned(index: int, processes: int, device: str, folder: Path, function, args) -> None:
    if device == "cpu":  # each process would take all cores otherwise
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    try:
        with _group(index, index, processes, device, (folder / "store").as_uri()):
            function(*args)
    except UserError as error:  # hand over the one line, not a traceback
        (folder / f"error-{index}").write_text(str(error))
        sys.exit(1)


@contextlib.contextmanager
def _group(
    index: int, local_index: int, processes: int, device: str, meeting_point: str
) -> Iterator[None]:
    if device == "cuda":
        torch.cuda.set_device(local_index)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting_point, rank=index, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of the first process."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean over processes, in place."""
    return all_reduce_sum(tensor).div_(world_size())


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in at least one process; all learn the same."""
    if world_size() == 1:
        return flag
    return bool(all_reduce_sum(torch.tensor(float(flag), device=device)) > 0)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over processes, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def gather_on_first(tensor: Tensor) -> list[Tensor] | None:
    """Tensors of all processes, in order of rank, on the first; None on the others."""
    if world_size() == 1:
        return [tensor]
    found = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(found, tensor)
    return found if rank() == 0 else None
