"""Several processes, one device each: start them, and keep their networks in step.

A process started by torchrun, or by a scheduler in its manner, finds its `Place` in the
environment; `launch` starts processes itself. Alone, every function here does nothing.
"""

import contextlib
import datetime
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

# Imported later, by an optimizer, it would capture the group in default arguments; then Gloo's
# threads outlive the group's end, and may crash while Python shuts down.
import torch.distributed.nn
from torch import Tensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from dnnlib import EXIT_STATUS_BASE, StopSignals, UserError, escape_unencodable, out_of_memory

from .watchdog import STALL_MINUTES, ProcessLost, Watchdog, verdict_in

GRACE_SECONDS = 10  # for the other processes to end when one has failed
LOOPBACK = "127.0.0.1"
FIRST_FAULT = "first-fault"  # file with the error of the process that failed first

T = TypeVar("T")


class Place(NamedTuple):
    """A process among those of a run, on all machines, and of its own machine.

    rank: number among all `world_size` processes. local_rank: number on its machine, which counts
    the devices there; None where whoever started the process does not say.
    """

    rank: int
    world_size: int
    local_rank: int | None

    @classmethod
    def from_environment(cls) -> "Place | None":
        """What torchrun, or a scheduler in its manner, says; None in a process started by hand.

        Raises:
            UserError: where it says half of it, or nonsense.
        """
        if "RANK" not in os.environ and "LOCAL_RANK" not in os.environ:
            return None
        needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in needed if not os.environ.get(name)]
        if missing:
            found = " and ".join(n for n in ("RANK", "LOCAL_RANK") if n in os.environ)
            raise UserError(
                f"the environment has {found} but not {', '.join(missing)}: start the processes "
                f"with torchrun, or unset {found} for a single one"
            )
        _number("MASTER_PORT")
        local = _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else None
        place = cls(_number("RANK"), _number("WORLD_SIZE"), local)
        if place.rank >= place.world_size:
            raise UserError(f"RANK {place.rank} must be below WORLD_SIZE {place.world_size}")
        return place

    def device_index(self) -> int:
        """The number of this process's CUDA device, among those visible to it.

        Schedulers may give each process one GPU, which is then the only visible one.

        Raises:
            UserError: where there is no device for it.
        """
        available = torch.cuda.device_count()
        local_rank = self.local_rank
        own_only = available == 1 and "CUDA_VISIBLE_DEVICES" in os.environ
        if own_only or (local_rank is None and available == 1):
            return 0
        if local_rank is None:
            raise UserError(
                f"LOCAL_RANK is not set, and process {self.rank} has {available} CUDA devices: "
                "set it to the number of the process on its machine, as torchrun does"
            )
        if local_rank >= available:
            raise UserError(
                f"LOCAL_RANK {local_rank}, but this machine shows {available} CUDA device(s): "
                "start as many processes on each machine as it has devices"
            )
        return local_rank


def _number(name: str) -> int:
    text = os.environ[name].strip()
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f"{name}={text!r} in the environment is not a number: start with torchrun")
    return int(text)


def rank() -> int:
    """Number of this process among all of the run; 0 is the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes of the run, on all machines."""
    return dist.get_world_size() if dist.is_initialized() else 1


def check_gpus(gpus: int, device_choice: str) -> str:
    """Whether so many processes can run where this one was started.

    Args:
        gpus: processes of the whole run, on all machines, one device each.
        device_choice: 'auto', 'cpu' or 'cuda'.

    Returns:
        'cuda' or 'cpu', for `launch`.

    Raises:
        UserError: where devices are missing, or torchrun started another number of processes.
    """
    available = 0 if device_choice == "cpu" else torch.cuda.device_count()
    if device_choice == "cuda" and not available:
        raise UserError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    place = Place.from_environment()
    if place is None:
        if available and gpus > available:
            raise UserError(
                f"--gpus {gpus}: only {available} CUDA devices are here; for several machines, "
                "start the command on each with torchrun"
            )
    elif place.world_size != gpus:
        raise UserError(
            f"torchrun started {place.world_size} processes, but --gpus says {gpus}: "
            f"add --gpus {place.world_size}"
        )
    elif available:
        place.device_index()
    return "cuda" if available else "cpu"


def launch(
    function: Callable[..., T],
    processes: int,
    device: str,
    *args: Any,
    stall_minutes: float = STALL_MINUTES,
) -> T:
    """Call function(*args) in `processes` processes that know each other; wait for all of them.

    Args:
        function: called in each of them; a name of a module where new ones are started.
        processes: of the whole run.
        device: 'cpu' or 'cuda', see `check_gpus`.
        args: what can be pickled.
        stall_minutes: without any process moving on, after which all are ended.

    Returns:
        What the function returns in the first process (no tensors); in a process that torchrun
        started, what it returns there.

    Raises:
        UserError: of any process; and where torchrun started another number of processes, they
            cannot meet, or one was killed; `ProcessLost` where its machine is another.
        OSError: of any process.
    """
    place = Place.from_environment()
    if place is not None:
        check_gpus(processes, device)
        return _together(lambda: function(*args), place, device, None, stall_minutes)
    if processes == 1:
        return function(*args)
    return _spawn(function, processes, device, stall_minutes, *args)


def _spawn(
    function: Callable[..., T], processes: int, device: str, stall_minutes: float, *args: Any
) -> T:
    with tempfile.TemporaryDirectory() as name, StopSignals() as stop:
        folder, results = Path(name), multiprocessing.get_context("spawn").SimpleQueue()
        store = dist.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
        arguments = (processes, device, folder, store.port, stall_minutes, results, function, args)
        context = torch.multiprocessing.spawn(_work, arguments, nprocs=processes, join=False)
        stop.forward_to(context.pids())
        try:
            while not context.join(grace_period=GRACE_SECONDS):
                pass
        except (ProcessExitedException, ProcessRaisedException) as error:
            if stop.received:  # before there was anything to finish
                sys.exit(EXIT_STATUS_BASE + stop.received)
            raise _first_failure(folder, verdict_in(store), error) from error
        if results.empty():  # the first process was interrupted
            sys.exit(EXIT_STATUS_BASE + (stop.received or signal.SIGINT))
        return results.get()


def _first_failure(folder: Path, verdict: str, error: Exception) -> Exception:
    """What to raise for processes of which at least one has failed.

    A recorded mistake of the user comes first: the process that made it, and those that miss it,
    may abort on their way out. Any other failure may only be that of missing a killed process.
    verdict: the watchdogs', or empty.
    """
    path = folder / FIRST_FAULT
    fault = pickle.loads(path.read_bytes()) if path.exists() else None
    if isinstance(fault, UserError | OSError):
        return fault
    if isinstance(error, ProcessExitedException) and error.signal_name is not None:
        return UserError(
            f"{error}, the others were stopped: the system may have run out of memory; training "
            "goes on with --resume latest"
        )
    return fault or (UserError(verdict) if verdict else error)


def _work(
    index: int,
    processes: int,
    device: str,
    folder: Path,
    port: int,
    stall_minutes: float,
    results: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    """What each spawned process does."""
    escape_unencodable()
    if device == "cpu":  # each process would take all cores otherwise
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    try:
        place = Place(index, processes, index)
        result = _together(lambda: function(*args), place, device, port, stall_minutes)
    except ProcessLost:  # the reason is recorded, or was a signal
        sys.exit(1)
    except Exception as error:
        mistake = out_of_memory(error) or (
            error if isinstance(error, UserError | OSError) else None
        )
        fault = mistake or RuntimeError(f"process {index} failed:\n{traceback.format_exc()}")
        # The others fail too, as soon as they miss this one: the first one tells why.
        with contextlib.suppress(FileExistsError), open(folder / FIRST_FAULT, "xb") as file:
            pickle.dump(fault, file)
        if mistake is not None:  # one line, no traceback
            sys.exit(1)
        raise
    if index == 0:
        results.put(result)


def _together(
    call: Callable[[], T], place: Place, device: str, port: int | None, stall_minutes: float
) -> T:
    """What `call` returns, between meeting the other processes and parting from them.

    port: of the store on this machine; None where the environment says where to meet.
    """
    _join(place, device, port, stall_minutes)
    with _watched(port, stall_minutes) if place.world_size > 1 else contextlib.nullcontext():
        result = call()
        barrier()  # nobody leaves, perhaps with the store, while others work
    dist.destroy_process_group()  # not after an error: it would wait for those who still work
    return result


@contextlib.contextmanager
def _watched(port: int | None, stall_minutes: float) -> Iterator[None]:
    """Within, a process that is lost or stands still ends all, with a line that names it."""
    if port is None:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        name = from_first(lambda: uuid.uuid4().hex)  # the store may outlive a restart
        store: dist.Store = dist.PrefixStore(name, dist.TCPStore(*address, is_master=False))
    else:
        store = dist.TCPStore(LOOPBACK, port, is_master=False)
    watchdog = Watchdog(store, rank(), world_size(), stall_minutes * 60, speaks=port is None)
    barrier()
    watchdog.start()
    try:
        yield
    except BaseException as error:
        cause = watchdog.explain(error)
        if cause is error:
            raise
        raise cause from error
    finally:
        watchdog.stop()


def _join(place: Place, device: str, port: int | None, stall_minutes: float) -> None:
    """Meet the other processes, in the store at `port` or where the environment says."""
    if device == "cuda":
        torch.cuda.set_device(place.device_index())
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    timeout = datetime.timedelta(minutes=stall_minutes + 5)  # the watchdog knows more
    store = None if port is None else dist.TCPStore(LOOPBACK, port, is_master=False)
    try:
        dist.init_process_group(
            backend,
            store=store,
            rank=place.rank,
            world_size=place.world_size,
            timeout=timeout,
        )
    except dist.DistError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the processes cannot meet at MASTER_ADDR:MASTER_PORT {where}: {reason}"
        ) from error


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


def gather_on_first(tensor: Tensor) -> list[Tensor] | None:
    """All processes' tensors, in main memory and of one shape, by rank; None on the others."""
    if world_size() == 1:
        return [tensor]
    found = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(found, tensor)
    return found if rank() == 0 else None
