"""What a run tells its user: status lines, log.txt, stats.jsonl, TensorBoard, warnings in words."""

import contextlib
import io
import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from dnnlib import UserError, append_bytes, append_line, atomic_write
from metrics.registry import Result
from torch_utils.training_stats import Stat

FLAT_RELIEF = 0.01  # of the box: less depth than this is a flat card
NARROW_POSES = math.radians(3)
_NOTHING = Stat(0, math.nan, math.nan)  # of a tick whose steps were all skipped


class Reporter:
    """Keeps the logs of one run folder; without a folder (all processes but the first) is silent.

    kimg: where training goes on; what the logs hold of later times is dropped. stop_when_full: a
    disk that cannot be written to stops the run; otherwise it costs what could not be written.
    """

    def __init__(
        self, folder: Path | None, total_kimg: float, kimg: float = 0, stop_when_full: bool = False
    ):
        self.folder, self.total_kimg, self.stop_when_full = folder, total_kimg, stop_when_full
        self._warned: set[str] = set()
        self._bar = None
        if folder is not None:
            self.guard(lambda: _forget_after(folder / "stats.jsonl", kimg))
            self._events = _Events(folder, round(kimg * 1000))
            self._bar = tqdm(
                total=total_kimg,
                initial=kimg,
                unit="kimg",
                disable=None,  # a bar on a terminal, none in a file
                bar_format="{l_bar}{bar}| {n:.2f}/{total:g} kimg [{elapsed}<{remaining}]",
            )

    def say(self, line: str) -> None:
        """To the terminal and log.txt, whichever can be written to."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                tqdm.write(line)
            with contextlib.suppress(OSError):
                append_line(self.folder / "log.txt", line)

    def guard(self, write: Callable[[], None]) -> None:
        """Do what writes to the run folder. A full disk is reported, or raises UserError."""
        try:
            write()
        except OSError as error:
            message = f"could not write to {self.folder} ({error.strerror or error})"
            if self.stop_when_full:
                raise UserError(f"{message}: make room, then use --resume latest") from error
            self.say(f"WARNING: {message}; going on, older files are kept")

    def warn_once(self, key: str, line: str) -> None:
        """Say `line` unless it was said since `recovered(key)`."""
        if key not in self._warned:
            self._warned.add(key)
            self.say(f"WARNING: {line}")

    def recovered(self, key: str) -> None:
        self._warned.discard(key)

    def progress(self, kimg: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(kimg - self._bar.n)

    def tick(self, number: int, kimg: float, sec_per_kimg: float, stats: dict[str, Stat]) -> None:
        """A status line, a line of stats.jsonl, and TensorBoard's scalars."""
        if self.folder is None:
            return
        memory = _memory_gb()
        self.say(_status_line(number, kimg, self.total_kimg, sec_per_kimg, memory, stats))
        record: dict[str, Any] = {
            "tick": number,
            "kimg": kimg,
            "sec_per_kimg": sec_per_kimg,
            "memory_gb": memory,
            "time": time.time(),
        }
        record |= {name: stat.mean for name, stat in stats.items()}
        record |= {f"{name}_std": stat.std for name, stat in stats.items()}
        self.guard(lambda: append_line(self.folder / "stats.jsonl", json.dumps(record)))
        self.guard(lambda: self._events.write(record, round(kimg * 1000)))

    def metric(self, result: Result, kimg: float, network: str) -> None:
        """A line for people, one in metric-NAME.jsonl, and TensorBoard's scalars."""
        if self.folder is None:
            return
        numbers = ", ".join(f"{name} {value:.5g}" for name, value in result.values.items())
        self.say(f"{numbers} ({result.seconds:.0f} s)")
        self.guard(lambda: result.append_to(self.folder, network))
        scalars = {f"metrics/{name}": value for name, value in result.values.items()}
        self.guard(lambda: self._events.write(scalars, round(kimg * 1000)))

    def watch_for_collapse(self, stats: dict[str, Stat], box_warp: float) -> None:
        """Warn when geometry is flat or all poses are the same; both are failures of training."""
        relief = stats.get("G/relief", _NOTHING).mean
        if relief < FLAT_RELIEF * box_warp:
            self.warn_once(
                "flat",
                f"the geometry is going flat (depth spreads by {relief:.4f} world units): "
                "more R1 (--gamma), or poses that start wider (camera.init_std), may help",
            )
        else:
            self.recovered("flat")
        spread = max(stats.get(f"pose/generated_{angle}", _NOTHING).std for angle in "hv")
        if spread < NARROW_POSES:
            self.warn_once(
                "narrow",
                f"the poses have collapsed (they spread by {math.degrees(spread):.1f} degrees): "
                "less pull (loss.pose_consistency_weight), or a wider camera.init_std, may help",
            )
        else:
            self.recovered("narrow")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Events:
    """TensorBoard's scalars, each tick whole or not at all.

    (PyTorch's writer has a thread of its own, in which errors are lost.)
    """

    def __init__(self, folder: Path, images: int):
        """images: those seen before; what earlier files of the folder show of later is hidden."""
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._head = [Event(file_version="brain.Event:2")]
        if images:
            restart = SessionLog(status=SessionLog.START)
            self._head.append(Event(step=images + 1, session_log=restart))

    def write(self, scalars: Mapping[str, float], images: int) -> None:
        """Raises OSError."""
        values = [Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()]
        event = Event(step=images, wall_time=time.time(), summary=Summary(value=values))
        records = RecordWriter(data := io.BytesIO())
        for part in [*self._head, event]:
            records.write(part.SerializeToString())
        append_bytes(self._path, data.getvalue())
        self._head = []


def _status_line(
    number: int,
    kimg: float,
    total_kimg: float,
    sec_per_kimg: float,
    memory: float,
    stats: dict[str, Stat],
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
        f"ETA {_duration((total_kimg - kimg) * sec_per_kimg)}",
        f"{memory:.2f} GB",
        f"G {mean('G/loss_own_view'):.3f}",
        f"D real {mean('D/loss_real'):.3f} fake {mean('D/loss_own_view'):.3f}",
        f"pose h {angle('pose/generated_h')} v {angle('pose/generated_v')} deg",
        f"seen h {angle('pose/seen_in_photographs_h')} v {angle('pose/seen_in_photographs_v')}",
        f"relief {mean('G/relief'):.4f}",
        f"augment {mean('augment/p'):.3f}",
    ]
    return " | ".join(parts)


def _duration(seconds: float) -> str:
    minutes = round(max(seconds, 0) / 60)
    days, hours = divmod(minutes // 60, 24)
    return (f"{days}d " if days else "") + f"{hours}h {minutes % 60:02d}m"


def _memory_gb() -> float:
    """Peak of the GPU, else what the process holds now."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return psutil.Process().memory_info().rss / 2**30


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
