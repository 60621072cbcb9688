"""What a run tells its user: status lines, log.txt, stats.jsonl, TensorBoard, warnings in words."""

import json
import math
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from torch_utils.training_stats import Stat

FLAT_RELIEF = 0.01  # of the box: less depth than this is a flat card
NARROW_POSES = math.radians(3)


class Reporter:
    """Keeps the logs of one run folder; without a folder (all processes but the first) is silent."""

    def __init__(self, folder: Path | None, total_kimg: float, kimg: float = 0):
        self.folder, self.total_kimg = folder, total_kimg
        self._started = time.time()
        self._warned: set[str] = set()
        self._bar = self._events = None
        if folder is not None:
            self._log = open(folder / "log.txt", "a", buffering=1)  # noqa: SIM115
            _forget_after(folder / "stats.jsonl", kimg)
            self._events = SummaryWriter(str(folder), purge_step=round(kimg * 1000))
            self._bar = tqdm(
                total=total_kimg,
                initial=kimg,
                unit="kimg",
                disable=None,  # a bar on a terminal, none in a file
                bar_format="{l_bar}{bar}| {n:.2f}/{total:g} kimg [{elapsed}<{remaining}]",
            )

    def say(self, line: str) -> None:
        """To the terminal and log.txt."""
        if self.folder is not None:
            tqdm.write(line)
            print(line, file=self._log)

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
        with open(self.folder / "stats.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in record.items():
            self._events.add_scalar(name, value, round(kimg * 1000))
        self._events.flush()

    def watch_for_collapse(self, stats: dict[str, Stat], box_warp: float) -> None:
        """Warn when geometry is flat or all poses are the same; both are failures of training."""
        relief = stats["G/relief"].mean
        if relief < FLAT_RELIEF * box_warp:
            self.warn_once(
                "flat",
                f"the geometry is going flat (depth spreads by {relief:.4f} world units): "
                "more R1 (--gamma), or poses that start wider (camera.init_std), may help",
            )
        else:
            self.recovered("flat")
        spread = max(stats[f"pose/generated_{angle}"].std for angle in "hv")
        if spread < NARROW_POSES:
            self.warn_once(
                "narrow",
                f"the generator's poses have collapsed (spread {math.degrees(spread):.1f} degrees): "
                "less pull (loss.pull_weight), or a wider camera.init_std, may help",
            )
        else:
            self.recovered("narrow")

    def close(self) -> None:
        if self.folder is not None:
            self._bar.close()
            self._events.close()
            self._log.close()


def _status_line(
    number: int,
    kimg: float,
    total_kimg: float,
    sec_per_kimg: float,
    memory: float,
    stats: dict[str, Stat],
) -> str:
    def angle(name: str) -> str:
        stat = stats[name]
        return f"{math.degrees(stat.mean):.0f}±{math.degrees(stat.std):.0f}"

    parts = [
        f"tick {number}",
        f"kimg {kimg:.2f}/{total_kimg:g}",
        f"{sec_per_kimg:.2f} s/kimg",
        f"ETA {_duration((total_kimg - kimg) * sec_per_kimg)}",
        f"{memory:.2f} GB",
        f"G {stats['G/loss_own_view'].mean:.3f}",
        f"D real {stats['D/loss_real'].mean:.3f} fake {stats['D/loss_own_view'].mean:.3f}",
        f"pose h {angle('pose/generated_h')} v {angle('pose/generated_v')} deg",
        f"seen h {angle('pose/seen_in_photographs_h')} v {angle('pose/seen_in_photographs_v')}",
        f"relief {stats['G/relief'].mean:.4f}",
    ]
    if "augment/p" in stats:
        parts.append(f"augment {stats['augment/p'].mean:.3f}")
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
    """Drop records of ticks that a resumed run will go through again."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        path.write_text("".join(x for x in whole if json.loads(x)["kimg"] <= kimg))
