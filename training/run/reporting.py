"""What a run tells its user: status lines, log.txt, stats.jsonl, TensorBoard, warnings in words."""

import contextlib
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from tqdm import tqdm

from dnnlib import UserError, append_line, atomic_write, code_version, first_line
from metrics.result import MetricResult
from torch_utils.training_stats import Stat
from training.run.wandb_run import start_wandb

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FLAT_DEPTH = 0.01  # of the box: a smaller spread of depth is a flat card
NARROW_POSES = math.radians(3)
# When poses should be there, and what says that they are not.
POSES_DUE_KIMG, POSES_DUE_SHARE = 10.0, 0.1
CONSISTENT, TURNING_OBJECTS = 0.3, 0.5
_HEALTH = {"gpu_use": "GPU", "data_wait": "data wait"}  # shares of time in the status line
_NOTHING = Stat(0, math.nan, math.nan)  # of a tick whose steps were all skipped


class Reporter:
    """Keeps the logs of one run folder; without a folder (all processes but the first) is silent.

    Args:
        folder: the run's, or None.
        total_kimg: length of the run.
        kimg: where training resumes; what the logs hold of later times is dropped.
        stop_when_full: a disk that cannot be written to stops the run; otherwise only that file
            is missing.
    """

    def __init__(
        self, folder: Path | None, total_kimg: float, kimg: float = 0, stop_when_full: bool = False
    ):
        self.folder, self.total_kimg, self.stop_when_full = folder, total_kimg, stop_when_full
        self._warned: set[str] = set()
        self._bar: tqdm | None = None
        self._events: SummaryWriter | None = None
        self._end_mirror: Callable[[], None] = lambda: None
        self._purge_from = round(kimg * 1000) + 1 if kimg else None
        if folder is not None:
            stats = folder / "stats.jsonl"
            self.guard(lambda: _forget_after(stats, kimg))
            self._bar = tqdm(
                total=total_kimg,
                initial=kimg,
                unit="kimg",
                disable=None,  # a bar on a terminal, none in a file
                bar_format="{l_bar}{bar}| {n:.2f}/{total:g} kimg [{elapsed}<{remaining}]",
            )

    def say(self, line: str) -> None:
        """Print a line and add it, with the time, to log.txt; whichever can be written to."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                tqdm.write(line)
            with contextlib.suppress(OSError):
                append_line(self.folder / "log.txt", f"{time.strftime('%F %T')} {line}")

    def say_environment(self) -> None:
        """What a log needs so that its run can be repeated: command line, host, versions."""
        self.say(f"command line: {shlex.join(sys.argv)}")
        self.say(
            f"host {platform.node()}, Python {platform.python_version()}, "
            f"torch {torch.__version__}, code version {code_version()}"
        )

    def guard(self, write: Callable[[], object]) -> bool:
        """Call what writes to the run folder; whether it could.

        Raises:
            UserError: where it could not, if a full disk is to stop the run.
        """
        try:
            write()
            return True
        except OSError as error:
            message = f"could not write to {self.folder} ({error.strerror or error})"
            if self.stop_when_full:
                raise UserError(f"{message}: make room, then use --resume latest") from error
            self.say(f"WARNING: {message}; going on, older files are kept")
            return False

    def warn_once(self, key: str, line: str) -> None:
        """Say `line` unless it was said since `recovered(key)`."""
        if key not in self._warned:
            self._warned.add(key)
            self.say(f"WARNING: {line}")

    def recovered(self, key: str) -> None:
        """Have the next `warn_once(key)` speak again."""
        self._warned.discard(key)

    def warn_while(self, is_wrong: bool, key: str, line: str) -> None:
        """Say `line` when something begins to be wrong."""
        if is_wrong:
            self.warn_once(key, line)
        else:
            self.recovered(key)

    def progress(self, kimg: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(kimg - self._bar.n)

    def estimate(self, seconds_per_step: float, steps: int) -> None:
        """Say after the first steps how long the run will take; `steps` are left."""
        self.say(
            f"{seconds_per_step:.2g} s per step: about {duration(seconds_per_step * steps)} "
            f"to {self.total_kimg:g} kimg; {_memory_gb():.2f} GB"
        )

    def tick(
        self,
        number: int,
        kimg: float,
        sec_per_kimg: float,
        stats: dict[str, Stat],
        health: Mapping[str, float] | None = None,
    ) -> None:
        """A status line, a line of stats.jsonl, and TensorBoard's scalars.

        Args:
            number: of the tick.
            kimg: trained so far.
            sec_per_kimg: time.
            stats: of the losses.
            health: of the machinery, as 'data_wait', the share of time without photographs.
        """
        if self.folder is None:
            return
        memory, health = _memory_gb(), dict(health or {}) | _gpu_use()
        self.say(_status_line(number, kimg, self.total_kimg, sec_per_kimg, memory, stats, health))
        record: dict[str, Any] = {
            "tick": number,
            "kimg": kimg,
            "sec_per_kimg": sec_per_kimg,
            "memory_gb": memory,
            "time": time.time(),
        }
        record |= health
        record |= {name: stat.mean for name, stat in stats.items()}
        record |= {f"{name}_std": stat.std for name, stat in stats.items()}
        path = self.folder / "stats.jsonl"
        self.guard(lambda: append_line(path, json.dumps(record)))
        self._write_events(record, {}, kimg)

    def metric(self, result: MetricResult, kimg: float, network: str) -> None:
        """A line for people, one in metric-NAME.jsonl, and TensorBoard's scalars."""
        if self.folder is None:
            return
        folder = self.folder
        numbers = ", ".join(f"{name} {value:.5g}" for name, value in result.values.items())
        self.say(f"{numbers} ({result.seconds:.0f} s)")
        self.guard(lambda: result.append_to(folder, network))
        self._write_events({f"metrics/{k}": v for k, v in result.values.items()}, {}, kimg)

    def pictures(self, pictures: Mapping[str, np.ndarray], kimg: float) -> None:
        """TensorBoard's pictures: uint8 [H, W, 3] by name."""
        self._write_events({}, pictures, kimg)

    def watch_for_collapse(self, stats: dict[str, Stat], box_warp: float) -> None:
        """Warn when geometry is flat or all poses are the same; both are failures of training."""
        spread = stats.get("G/depth_spread", _NOTHING).mean
        self.warn_while(
            spread < FLAT_DEPTH * box_warp,
            "flat",
            f"the geometry is going flat (depth spreads by {spread:.4f} world units): "
            "more R1 (--gamma), or poses that start wider (camera.init_std), may help",
        )
        spread = max(stats.get(f"pose/generated_{angle}", _NOTHING).std for angle in "hv")
        self.warn_while(
            spread < NARROW_POSES,
            "narrow",
            f"the poses have collapsed (they spread by {math.degrees(spread):.1f} degrees): "
            "a smaller loss.pose_consistency_weight or a wider camera.init_std may help",
        )

    def watch_poses(self, stats: dict[str, Stat], kimg: float) -> None:
        """Warn when, some way into the run, D's poses of photographs mean little.

        Signs that need no labels: flipping a photograph does not flip its pose; D's poses spread
        much less than G's, as where objects turn in place of cameras. Where all photographs show
        one side of the objects, flipped ones are unlike any, and a flip may well leave the yaw.
        """
        if kimg < max(self.total_kimg * POSES_DUE_SHARE, POSES_DUE_KIMG):
            return
        advice = "see 'poses are not learned' in docs/troubleshooting.md"
        correlation = stats.get("pose/flip_correlation", _NOTHING).mean
        self.warn_while(
            abs(correlation) < CONSISTENT,
            "flip",
            "poses are not being found: D's poses of flipped photographs are not the flipped "
            f"ones (correlation {correlation:.2f}); {advice}",
        )
        estimated, generated = (
            max(stats.get(f"pose/{kind}_{angle}", _NOTHING).std for angle in "hv")
            for kind in ("estimated", "generated")
        )
        self.warn_while(
            estimated < TURNING_OBJECTS * generated,
            "turning",
            f"D's poses of photographs spread by {math.degrees(estimated):.0f} degrees and G's "
            f"by {math.degrees(generated):.0f}: objects may turn in place of cameras; {advice}",
        )

    def mirror(self, project: str, config: dict[str, Any]) -> None:
        """Have Weights & Biases get what TensorBoard gets from now on."""
        if (folder := self.folder) is not None:
            try:
                self._end_mirror = start_wandb(project, folder, config)
            except Exception as error:  # of its own kinds
                self.say(f"WARNING: no Weights & Biases ({first_line(error)}); going on without")

    def close(self) -> None:
        """End the bar and flush TensorBoard's file."""
        if self._bar is not None:
            self._bar.close()
        if self._events is not None:
            self._attempt(self._events.close)
        self._attempt(self._end_mirror)

    def _write_events(
        self, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray], kimg: float
    ) -> None:
        if self.folder is not None:
            self._attempt(lambda: self._add_events(scalars, pictures, round(kimg * 1000)))

    def _add_events(
        self, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray], images: int
    ) -> None:
        if self._events is None:
            # Imported here, since it takes a second that commands without training do not have.
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.folder), purge_step=self._purge_from)
        for name, value in scalars.items():
            self._events.add_scalar(name, value, images)
        for name, picture in pictures.items():
            self._events.add_image(name, picture, images, dataformats="HWC")
        self._events.flush()

    def _attempt(self, write: Callable[[], None]) -> None:
        """TensorBoard's writer fails in its own ways; it is only a view of stats.jsonl."""
        try:
            write()
            self.recovered("events")
        except Exception as error:
            self._events, self._purge_from = None, None  # a new file once there is room again
            self.warn_once("events", f"could not write TensorBoard's events ({error}); going on")


def _status_line(
    number: int,
    kimg: float,
    total_kimg: float,
    sec_per_kimg: float,
    memory: float,
    stats: dict[str, Stat],
    health: Mapping[str, float],
) -> str:
    def mean(name: str) -> float:
        return stats.get(name, _NOTHING).mean

    def angle(name: str) -> str:
        stat = stats.get(name, _NOTHING)
        return f"{math.degrees(stat.mean):.0f}±{math.degrees(stat.std):.0f}"

    parts = [
        f"tick {number}",
        f"kimg {kimg:.2f}/{total_kimg:g}",
        f"{sec_per_kimg:.2f} s/kimg",
        f"ETA {duration((total_kimg - kimg) * sec_per_kimg)}",
        f"{memory:.2f} GB",
        *(f"{words} {health[name]:.0%}" for name, words in _HEALTH.items() if name in health),
        f"G {mean('G/loss_own_view'):.3f}",
        f"D real {mean('D/loss_real'):.3f} fake {mean('D/loss_own_view'):.3f}",
        f"pose h {angle('pose/generated_h')} v {angle('pose/generated_v')} deg",
        f"estimated h {angle('pose/estimated_h')} v {angle('pose/estimated_v')}",
        f"flip {mean('pose/flip_correlation'):+.2f}",
        f"depth spread {mean('G/depth_spread'):.4f}",
        f"augment {mean('augment/p'):.3f}",
    ]
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """3723 -> '1h 02m'."""
    minutes = round(max(seconds, 0) / 60)
    days, hours = divmod(minutes // 60, 24)
    return (f"{days}d " if days else "") + f"{hours}h {minutes % 60:02d}m"


def _memory_gb() -> float:
    """Peak of the GPU, else what the process holds now."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return psutil.Process(os.getpid()).memory_info().rss / 2**30


def _gpu_use() -> dict[str, float]:
    """Share of the last second in which this process's GPU computed, where it can be asked."""
    if not torch.cuda.is_available():
        return {}
    try:
        return {"gpu_use": torch.cuda.utilization() / 100}
    except Exception:  # nvidia-ml-py is missing, or has an error of its own
        return {}


def _forget_after(path: Path, kimg: float) -> None:
    """Drop records of ticks that a resumed run will go through again, and broken lines."""
    if path.exists():
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if _kimg_of(line) <= kimg]
        if kept != lines:
            with atomic_write(path) as temporary:
                temporary.write_text("".join(kept))


def _kimg_of(line: str) -> float:
    try:
        return json.loads(line)["kimg"]
    except (ValueError, TypeError, KeyError):
        return math.inf
