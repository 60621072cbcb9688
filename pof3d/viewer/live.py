"""Live rendering: the newest wish, coarse at once, sharper while nothing changes."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pof3d.viewer.rendering import Frame, FreeCamera, details, render_frame
from pof3d.viewer.scene import Settings, mix
from training.networks.generator import Generator
from training.outputs.objects import Objects

FRAME_SECONDS = 0.08  # for a frame while the camera moves
SMALLEST, LARGEST = 32, 128  # pixels a side of such a frame
SIZE_STEP = 8  # they are multiples of it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What one browser is to show."""

    generator: Generator
    settings: Settings
    camera: FreeCamera
    mode: str = "image"


def quick_size(size: int, seconds: float) -> int:
    """The size that would have taken FRAME_SECONDS, since time goes with area."""
    better = size * (FRAME_SECONDS / seconds) ** 0.5
    better = (size + better) / 2  # one slow frame is no slow machine
    return min(max(round(better / SIZE_STEP) * SIZE_STEP, SMALLEST), LARGEST)


class LiveRenderer:
    """Renders wishes in a thread of its own and shows frames from there.

    A wish replaces the one before, whose sharper frames are given up; its first, coarse frame is
    always finished, so that a camera which never rests is followed.

    Args:
        show: takes a frame and whether it is the sharpest.
        fail: takes what went wrong; the next wish is tried again.
        size: pixels a side of the first coarse frame; later ones adapt to the machine.
    """

    def __init__(
        self,
        show: Callable[[Frame, bool], None],
        fail: Callable[[Exception], None],
        size: int = 64,
    ):
        self._show, self._fail, self._size = show, fail, size
        self.frame_rate = 0.0  # coarse frames a second, by the last one
        self._changed = threading.Condition()
        self._wish: Wish | None = None
        self._version = 0
        self._is_open = True
        self._objects: tuple[Generator, Settings, Objects] | None = None
        self._thread = threading.Thread(target=self._run, name="live renderer", daemon=True)
        self._thread.start()

    def request(self, wish: Wish) -> None:
        """Show this from now on."""
        with self._changed:
            self._wish = wish
            self._version += 1
            self._changed.notify()

    def close(self) -> None:
        """End the thread, after the part of a frame at which it works."""
        with self._changed:
            self._is_open = False
            self._version += 1
            self._changed.notify()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end after `close`; returns whether it ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        done = 0
        while True:
            with self._changed:
                while self._is_open and (self._version == done or self._wish is None):
                    self._changed.wait()
                if not self._is_open:
                    return
                done, wish = self._version, self._wish
            assert wish is not None
            try:
                self._fulfill(wish, done)
            except Exception as error:  # a browser that went away, memory: others go on
                log.debug("frame failed", exc_info=True)
                self._fail(error)

    def _fulfill(self, wish: Wish, version: int) -> None:
        def is_stale() -> bool:
            return self._version != version

        objects = self._objects_of(wish)
        steps = details(wish.generator, self._size)
        for step, detail in enumerate(steps):
            start = time.perf_counter()
            first, last = step == 0, step == len(steps) - 1
            frame = render_frame(
                objects,
                wish.camera,
                detail,
                wish.mode,
                (lambda: False) if first else is_stale,
            )
            if frame is None:
                return
            self._show(frame, last)
            if first:
                seconds = time.perf_counter() - start
                self._size, self.frame_rate = quick_size(self._size, seconds), 1 / seconds
            if is_stale():
                return

    def _objects_of(self, wish: Wish) -> Objects:
        """The wish's object, made anew only where the settings changed."""
        last = self._objects
        if last is None or last[0] is not wish.generator or last[1] != wish.settings:
            last = wish.generator, wish.settings, mix(wish.generator, wish.settings)
            self._objects = last
        return last[2]
