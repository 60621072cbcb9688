"""SIGTERM and SIGINT as a polite request: finish what is being done, then stop."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable

EXIT_STATUS_BASE = 128  # a shell's convention for "ended by signal n"
PATIENCE = 2.0  # seconds; what comes sooner is the same Ctrl-C, sent on by another process


class StopSignals:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it.

    received: its number, or None. A later Ctrl-C interrupts whatever does not come to its end.
    Only the main thread can enter.
    """

    def __init__(self):
        self.received: int | None = None
        self._received_at = 0.0
        self._listeners: tuple[int, ...] = ()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def forward_to(self, processes: Iterable[int]) -> None:
        """Let other processes, by their ids, hear of all signals; at once of one already here."""
        self._listeners = tuple(processes)
        if self.received:
            self._forward(self.received)

    def _handle(self, number: int, _frame) -> None:
        if self.received is None:
            self.received, self._received_at = number, time.monotonic()
        self._forward(number)
        if number == signal.SIGINT and time.monotonic() > self._received_at + PATIENCE:
            raise KeyboardInterrupt

    def _forward(self, number: int) -> None:
        for process in self._listeners:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)
