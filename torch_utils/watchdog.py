"""Notices when a process of a run is lost or stands still, and says which one and where.

A thread in each process writes to the processes' common store, every few seconds, where its main
thread is, and reads what the others wrote. It takes no part in what they compute.
"""

import contextlib
import faulthandler
import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch.distributed as dist

from dnnlib import StopSignals, UserError, first_line, say_now

BEAT_SECONDS = 2.0
LOST_SECONDS = 40.0  # of silence: the process is gone, or nobody can reach it
BROKEN_SECONDS = 8.0  # the same, once a connection has broken
NOTICE_SECONDS = 4.0  # for the main thread to meet a broken connection
UNWIND_SECONDS = 20.0  # for a main thread that has met one to end
DEAF_SECONDS = 55.0  # until a process is ended that cannot even beat; others have counted it lost
STALL_MINUTES = 15.0

STDERR = 2  # where a person looks, whatever Python's stderr may be
_WAITING = ("torch.distributed", "torch_utils.distributed", "torch_utils.gradients")
_VERDICT = "verdict"  # key of the store: why all end; the first word stays
_AGAIN = "start again with --resume auto"
# As Gloo, NCCL and the store word it when another process is gone.
_CONNECTION = re.compile(r"gloo/|nccl|connection (was )?(closed|reset|refused)|broken pipe", re.I)


class ProcessLost(UserError):
    """Another process of the run has failed, is gone, or stands still."""


def is_broken_connection(error: BaseException) -> bool:
    """Whether an error only says that another process is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and bool(_CONNECTION.search(str(error)))
    )


def verdict_in(store: dist.Store) -> str:
    """Why the watchdogs of a store ended their processes, or empty."""
    return store.get(_VERDICT).decode() if store.check([_VERDICT]) else ""


class Beat(NamedTuple):
    """What a process says of itself.

    number: counts its beats. place: file, line and function where its main thread is. seconds:
    since when it is there. waiting: whether it waits for other processes there. host: its machine.
    left: whether it has ended in order.
    """

    number: int
    place: str
    seconds: float
    waiting: bool
    host: str
    left: bool = False


class Watchdog:
    """The thread of one process.

    Args:
        store: connected to for this purpose alone; the main thread may block in another.
        rank: of this process.
        world_size: number of processes.
        stall_seconds: without any process moving on, after which all are ended.
        speaks: whether it prints why it ends the process; else who started it reads `verdict_in`.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        world_size: int,
        stall_seconds: float,
        speaks: bool = True,
    ):
        self._speaks = speaks
        self._store, self._rank, self._world_size = store, rank, world_size
        self._stall_seconds = stall_seconds
        self._main = _MainThread()
        self._number = 0
        self._heard = {other: (-1, time.monotonic()) for other in range(world_size)}
        self._lock = threading.Lock()  # of the store's connection
        self._stopped, self._known, self._explained = (threading.Event() for _ in range(3))
        self._connection_broken = False
        self._verdict = ""
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch; all processes must have made their watchdogs."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and tell the others that this process leaves in order."""
        self._stopped.set()
        self._thread.join(BEAT_SECONDS)
        faulthandler.cancel_dump_traceback_later()
        if not self._thread.is_alive():  # else it waits for a store that does not answer
            with contextlib.suppress(RuntimeError):
                self._beat(left=True)

    def explain(self, error: BaseException) -> BaseException:
        """What to raise in this process for `error`; tells the others when it began here.

        Returns:
            The error itself, or a `ProcessLost` that names the process whose loss it comes of.
        """
        self._explained.set()
        if not is_broken_connection(error):
            here = f"process {self._rank} on {socket.gethostname()}"
            with contextlib.suppress(RuntimeError):
                self._agree(f"{here} failed: {first_line(error)}")
            return error
        self._connection_broken = True
        with StopSignals():  # torchrun sends one meanwhile; the line is to be said all the same
            self._known.wait(LOST_SECONDS)
        unknown = f"another process was lost ({first_line(error)}); {_AGAIN}"
        return ProcessLost(self._verdict or unknown)

    def _watch(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            # Works without Python's lock, which a stalled main thread may hold.
            faulthandler.dump_traceback_later(DEAF_SECONDS, exit=True, file=STDERR)
            try:
                self._verdict = self._judge()
            except RuntimeError as error:
                self._verdict = (
                    f"the store of the processes does not answer ({first_line(error)}): "
                    f"process 0 or its machine is gone; {_AGAIN}"
                )
            if self._verdict:
                self._end()
        faulthandler.cancel_dump_traceback_later()

    def _judge(self) -> str:
        """Why all should end; empty while there is no reason."""
        self._beat()
        with self._lock:
            if known := verdict_in(self._store):
                return known
            found = self._store.multi_get([_key(rank) for rank in range(self._world_size)])
        beats = {rank: Beat(*json.loads(text)) for rank, text in enumerate(found)}
        present = {rank: beat for rank, beat in beats.items() if not beat.left}
        verdict = self._lost(present) or self._stalled(present)
        return self._agree(verdict) if verdict else ""

    def _beat(self, left: bool = False) -> None:
        self._number += 1
        beat = Beat(self._number, *self._main.look(), socket.gethostname(), left)
        with self._lock:
            self._store.set(_key(self._rank), json.dumps(beat))

    def _agree(self, verdict: str) -> str:
        """Make a verdict that of all processes, unless there is one. Returns what it is then."""
        with self._lock:
            return self._store.compare_set(_VERDICT, "", verdict).decode()

    def _lost(self, beats: Mapping[int, Beat]) -> str:
        now, silence = time.monotonic(), {}
        for rank, beat in beats.items():
            number, since = self._heard[rank]
            if beat.number != number:
                self._heard[rank] = beat.number, now
            elif rank != self._rank:
                silence[rank] = now - since
        limit = BROKEN_SECONDS if self._connection_broken else LOST_SECONDS
        if max(silence.values(), default=0) < limit:
            return ""
        # With all that fell silent at about the same time, as those of one machine.
        silent = [rank for rank, seconds in silence.items() if seconds > limit - 2 * BEAT_SECONDS]
        return (
            f"{_name(silent, beats)} went silent (last seen in {beats[silent[0]].place}): killed, "
            f"short of memory, or cut off from the network; {_AGAIN}"
        )

    def _stalled(self, beats: Mapping[int, Beat]) -> str:
        since = min((beat.seconds for beat in beats.values()), default=0)
        if since < self._stall_seconds:
            return ""
        places: dict[tuple[bool, str], list[int]] = defaultdict(list)
        for rank, beat in beats.items():
            places[beat.waiting, beat.place].append(rank)
        parts = []
        for (waiting, place), ranks in sorted(places.items()):
            verb = ("wait" if waiting else "stand") + "s" * (len(ranks) == 1)
            parts.append(f"{_name(ranks, beats)} {verb} in {place}")
        return f"nothing has moved on for {since / 60:.2g} minutes: {'; '.join(parts)}; {_AGAIN}"

    def _end(self) -> None:
        """See to it that this process ends: by its main thread if that notices, else here."""
        self._known.set()
        if self._stopped.wait(NOTICE_SECONDS):
            return
        if not self._explained.is_set():
            if self._speaks:
                say_now(f"Error: {self._verdict}")
            if not self._main.look().waiting:
                say_now(self._main.stack())
        elif self._stopped.wait(UNWIND_SECONDS):
            return
        os._exit(1)


class _Look(NamedTuple):
    place: str
    seconds: float
    waiting: bool


class _MainThread:
    """Where the main thread is, and for how long."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, int | None]] = []
        self._since = time.monotonic()

    def look(self) -> _Look:
        frames = [frame for frame, _ in traceback.walk_stack(self._frame())]
        stack = [(id(frame.f_code), frame.f_lineno) for frame in frames]
        if stack != self._stack:
            self._stack, self._since = stack, time.monotonic()
        place, waiting = _place(frames)
        return _Look(place, time.monotonic() - self._since, waiting)

    def stack(self) -> str:
        return "".join(traceback.format_stack(self._frame())).rstrip()

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(threading.main_thread().ident or 0)


def _place(frames: list[FrameType]) -> tuple[str, bool]:
    """The innermost place outside Python's and torch's own code; whether it waits for others."""
    waiting = False
    for frame in frames:
        module = frame.f_globals.get("__name__", "")
        waiting = waiting or module.startswith(_WAITING)
        top = module.partition(".")[0]
        if top != "torch" and top not in sys.stdlib_module_names:
            path = Path(frame.f_code.co_filename)
            place = f"{path.parent.name}/{path.name}:{frame.f_lineno} {frame.f_code.co_name}"
            return place, waiting
    return "nowhere", waiting


def _name(ranks: Sequence[int], beats: Mapping[int, Beat]) -> str:
    plural = "es" if len(ranks) > 1 else ""
    hosts = sorted({beats[rank].host for rank in ranks})
    return f"process{plural} {', '.join(map(str, ranks))} on {', '.join(hosts)}"


def _key(rank: int) -> str:
    return f"beat-{rank}"
