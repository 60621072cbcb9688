"""SIGTERM and SIGINT as a polite request: finish what is being done, then stop."""

import os
import signal
from collections.abc import Iterable

EXIT_STATUS_BASE = 128  # a shell's convention for "ended by signal n"


class StopSignals:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it.

    received: its number, or None. forward_to: processes that are to hear of it too.
    """

    def __init__(self, forward_to: Iterable[int] = ()):
        self.received: int | None = None
        self._forward_to = tuple(forward_to)
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame) -> None:
        self.received = self.received or number
        for process in self._forward_to:
            os.kill(process, number)
