"""A command of the user's, run beside training with each new network file."""

import concurrent.futures
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

PLACE_OF_PATH = "{}"


class AfterSnapshot:
    """Runs the command for one file at a time, in the order of the files.

    Args:
        command: as for a shell, but without one; '{}' stands for the path, which else comes last.
        warn: told when the command fails, which it may.
    """

    def __init__(self, command: str, warn: Callable[[str], None]):
        self._words, self._warn = shlex.split(command), warn
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "after_snapshot")
        self._jobs: list[concurrent.futures.Future[None]] = []
        self._process: subprocess.Popen | None = None

    def __call__(self, path: Path) -> None:
        """Run the command for a file; returns at once."""
        self._jobs = [job for job in self._jobs if not job.done()]
        self._jobs.append(self._thread.submit(self._run, path.absolute()))

    def close(self, patience: float) -> None:
        """Wait for the commands under way, for `patience` seconds; then end them."""
        late = concurrent.futures.wait(self._jobs, timeout=patience).not_done
        self._thread.shutdown(wait=False, cancel_futures=True)
        if late and self._process is not None:
            self._warn(f"not finished within {patience:g} s")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _run(self, path: Path) -> None:
        words = [word.replace(PLACE_OF_PATH, str(path)) for word in self._words]
        if words == self._words:
            words.append(str(path))
        try:
            # A session of its own: Ctrl-C is meant for training.
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            said = self._process.communicate()[0].decode(errors="replace").strip()
        except OSError as error:
            self._warn(f"{words[0]}: {error.strerror or error}")
            return
        if status := self._process.returncode:
            last = said.splitlines()[-1:] or [f"status {status}"]
            self._warn(f"{words[0]}, {path.name}: {last[0]}")
