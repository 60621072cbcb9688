"""Signals as a polite request: finish what is being done, then stop."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

EXIT_STATUS_BASE = 128  # a shell's convention for "ended by signal n"
PATIENCE = 2.0  # seconds; what comes sooner is the same Ctrl-C, sent on by another process

# What systems and schedulers end a process with, or warn it with before its time is over.
SCHEDULER_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)


@contextlib.contextmanager
def signals_unwind() -> Iterator[None]:
    """Within, signals that would kill the process raise SystemExit instead.

    Those with a handler, or ignored (as nohup does with SIGHUP), stay as they are; so do all in
    threads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def handle(number: int, _frame: Any) -> None:
        if os.getpid() == process:
            sys.exit(EXIT_STATUS_BASE + number)
        signal.signal(number, signal.SIG_DFL)  # a forked worker has nothing to clean up
        os.kill(os.getpid(), number)

    numbers = [n for n in SCHEDULER_SIGNALS if signal.getsignal(n) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class StopSignals:
    """While entered, remembers the first signal that asks to stop instead of dying of it.

    These are SIGINT (Ctrl-C) and `SCHEDULER_SIGNALS`, except SIGHUP where it is ignored (nohup). A
    later Ctrl-C raises KeyboardInterrupt, with a line that says what is lost. Only the main thread
    can enter; processes that it forks in the meantime ignore these signals, since it stops them.

    Args:
        on_first: called at once, in the signal handler, with a line to show the user; see
            `say_now`. None in processes whose words nobody reads.

    Attributes:
        received: number of the first signal, or None.
    """

    def __init__(self, on_first: Callable[[str], None] | None = None):
        self.received: int | None = None
        self._on_first = on_first
        self._received_at = 0.0
        self._process = os.getpid()
        self._listeners: tuple[int, ...] = ()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._process = os.getpid()
        for number in (signal.SIGINT, *SCHEDULER_SIGNALS):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def forward_to(self, processes: Iterable[int]) -> None:
        """Let other processes, by their ids, hear of all signals; at once of one already here."""
        self._listeners = tuple(processes)
        if self.received:
            self._forward(self.received)

    def _handle(self, number: int, _frame: object) -> None:
        if os.getpid() != self._process:
            return
        first = self.received is None
        if first:
            self.received, self._received_at = number, time.monotonic()
        self._forward(number)
        if first and self._on_first is not None:
            again = "; Ctrl-C again stops at once, without saving"
            self._on_first(
                f"{signal.Signals(number).name}: stopping after this step"
                + (again if number == signal.SIGINT else "")
            )
        if number == signal.SIGINT and time.monotonic() > self._received_at + PATIENCE:
            raise KeyboardInterrupt(
                "stopped in the middle of a step: what came after the last checkpoint is not saved"
            )

    def _forward(self, number: int) -> None:
        for process in self._listeners:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)


def say_now(line: str) -> None:
    """Write a line to stderr from within a signal handler, where a stream may be in use."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
