"""Time of a training iteration against its rivals, taken in alternation in one run.

    python benchmarks/step.py --naive                the paper's faces at 128 px, batch 4, full size
    python benchmarks/step.py --cfg toy --twins

An iteration is one main phase of G and of D, and the regularizers in proportion to how often they
run. Beside each time stand the work behind it and the rates that this machine reaches in a large
convolution and in a copy, hence a bound: an iteration cannot take less than its floating-point
operations (of convolutions and matrix products) at the former rate. The bytes are those that its
operations read and write in plain torch, each on its own.
"""

import contextlib
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.naive import PUBLISHED_SCHEDULE, plain_operations
from dnnlib import Command
from torch_utils.devices import select_device, select_precision
from torch_utils.ops import status
from training.config import Config, parse_settings
from training.losses import LOSSES, PhaseLosses
from training.presets import build_config
from training.run.loop import open_dataset
from training.step import Trainer

FFHQ_128 = {"data.resolution": 128, "run.batch": 4}
LATE = 100_000  # rounds of all regularizers before the step that is timed: D's blur is over

Meter = Callable[[], np.ndarray]  # reads something that grows


class Contestant(NamedTuple):
    """A way to compute the same step. conditions: holds while it does; schedule: the losses, whose
    order of passes decides the work; precision: of activations, None for the run's own."""

    name: str
    conditions: Callable[[], contextlib.AbstractContextManager]
    schedule: PhaseLosses
    precision: str | None


OURS = Contestant("this code", contextlib.nullcontext, LOSSES, None)
FP32 = Contestant("this code, fp32", contextlib.nullcontext, LOSSES, "fp32")
TWINS = Contestant("this schedule, plain torch, fp32", plain_operations, LOSSES, "fp32")
NAIVE = Contestant(
    "published schedule, plain torch, fp32", plain_operations, PUBLISHED_SCHEDULE, "fp32"
)


class MeteredTrainer(Trainer):
    """Reads a meter before and after each phase of a step."""

    meter: Meter

    def iteration(self, meter: Meter) -> np.ndarray:
        """What an iteration adds to the meter, lazy phases counted in proportion."""
        self.meter, self.saved = meter, np.zeros(())
        loss = self.config.loss
        self.steps = LATE * loss.density_every * loss.r1_every
        start = meter()
        self.step()
        return meter() - start - self.saved

    def _update(self, *arguments: Any, scale: float = 1) -> list[dict[str, Tensor]]:
        start = self.meter()
        terms = super()._update(*arguments, scale=scale)
        # A phase that runs in every k-th step is scaled by k.
        self.saved = self.saved + (self.meter() - start) * (1 - 1 / scale)
        return terms


def clock(device: torch.device) -> Meter:
    """Seconds, all work done."""

    def read() -> np.ndarray:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return np.array([time.perf_counter()])

    return read


def processor_clock() -> np.ndarray:
    """Seconds of processor time, which others at work on the machine hardly change."""
    return np.array([time.process_time()])


def meter_of(device: torch.device, processor_time: bool) -> Meter:
    """The one that a run reads."""
    return processor_clock if processor_time else clock(device)


class Work(TorchDispatchMode):
    """Adds up the FLOP of convolutions and matrix products, and the bytes of all tensors that
    operations take and return."""

    def __init__(self):
        super().__init__()
        self.total = np.zeros(2)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view:
            count = flop_registry.get(func.overloadpacket)
            flop = count(*args, **kwargs, out_val=result) if count else 0
            tensors = (t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor))
            self.total += (flop, sum(t.nbytes for t in tensors))
        return result


def work(trainer: MeteredTrainer, contestant: Contestant) -> np.ndarray:
    """FLOP and bytes of an iteration. In plain torch and fp32: all operations can be counted."""
    trainer.losses = contestant.schedule
    trainer.set_precision("fp32")
    with plain_operations(), Work() as done:
        return trainer.iteration(lambda: done.total.copy())


def seconds_of(function: Callable[[], object], read: Meter, repeats: int = 9) -> float:
    seconds = []
    for _ in range(repeats):
        start = read()
        function()
        seconds.append((read() - start).item())
    return min(seconds)


def rates_of_the_machine(device: torch.device, read: Meter) -> dict[str, float]:
    """A 3x3 convolution of 256 channels, and a copy of 256 MB, read and written."""
    x, weight = torch.randn(4, 256, 64, 64), torch.randn(256, 256, 3, 3)
    x, weight = x.to(device), weight.to(device)
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    convolve = seconds_of(lambda: F.conv2d(x, weight, padding=1), read)
    copy = seconds_of(lambda: target.copy_(source), read)
    return {
        "convolution_gflop_per_s": 2 * x.numel() * 256 * 9 / convolve / 1e9,
        "copy_gb_per_s": 2 * source.nbytes / copy / 1e9,
    }


def peak_gb(device: torch.device) -> float:
    """Of the process so far: of what ran first, or of what needs most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def write_noise(folder: Path, count: int, resolution: int) -> None:
    """Photographs of nothing: the time does not depend on what they show."""
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (resolution, resolution, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def configure(preset: str, settings: tuple[str, ...], data: Path) -> Config:
    changes = (FFHQ_128 if preset == "ffhq" else {}) | parse_settings(settings)
    return build_config(preset, changes | {"data.path": str(data), "data.workers": 0})


def measure(
    config: Config, contestants: list[Contestant], repeats: int, processor_time: bool
) -> list[dict[str, Any]]:
    """Times of all contestants, in turns; then the work of each."""
    trainer = MeteredTrainer(config, open_dataset(config), select_device(config.run.device))
    read = meter_of(trainer.device, processor_time)
    own_precision = trainer.precision
    trainer.iteration(read)  # warm-up: kernels, optimizer state, memory
    seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
    peaks: dict[str, float] = {}
    for _ in range(repeats):
        for contestant in contestants:
            trainer.losses = contestant.schedule
            trainer.set_precision(contestant.precision or own_precision)
            with contestant.conditions():
                seconds[contestant.name].append(trainer.iteration(read).item())
            peaks.setdefault(contestant.name, peak_gb(trainer.device))
    rows = []
    for contestant in contestants:
        flop, bytes_moved = work(trainer, contestant).tolist()
        rows.append(
            {
                "name": contestant.name,
                "seconds": seconds[contestant.name],
                "median": statistics.median(seconds[contestant.name]),
                "peak_gb": peaks[contestant.name],
                "tflop": flop / 1e12,
                "gigabytes": bytes_moved / 1e9,
            }
        )
    return rows


def table(rows: list[dict[str, Any]], batch: int, rates: dict[str, float]) -> Iterator[str]:
    yield "| | s/iteration | x | images/s | peak GB | TFLOP | GB moved | bound, s |"
    yield f"|{' --- |' * 8}"
    for row in rows:
        seconds = row["median"]
        bound = 1e3 * row["tflop"] / rates["convolution_gflop_per_s"]
        yield (
            f"| {row['name']} | {seconds:.3f} | {seconds / rows[0]['median']:.2f} | "
            f"{batch / seconds:.2f} | {row['peak_gb']:.2f} | {row['tflop']:.3f} | "
            f"{row['gigabytes']:.1f} | {bound:.3f} |"
        )


@click.command(cls=Command)
@click.option("--cfg", default="ffhq", show_default=True, help="Preset; ffhq runs at 128 px.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.FIELD=VALUE", help="Any field.")
@click.option("--naive", is_flag=True, help="Also the published schedule, in plain torch.")
@click.option("--fp32", is_flag=True, help="Also this code in fp32, where it takes another type.")
@click.option("--twins", is_flag=True, help="Also this schedule, in plain torch.")
@click.option("--repeats", default=3, type=click.IntRange(1), show_default=True)
@click.option("--threads", type=click.IntRange(1), help="[default: torch's]")
@click.option(
    "--processor-time", is_flag=True, help="One thread's, for a machine that others use too."
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="write the numbers there",
)
def main(
    cfg: str,
    settings: tuple[str, ...],
    naive: bool,
    fp32: bool,
    twins: bool,
    repeats: int,
    threads: int | None,
    processor_time: bool,
    json_file: Path | None,
) -> None:
    """Seconds per training iteration, images per second, peak memory, and the bound."""
    if processor_time:
        torch.set_num_threads(1)
    elif threads:
        torch.set_num_threads(threads)
    contestants = [OURS, *[FP32] * fp32, *[TWINS] * twins, *[NAIVE] * naive]
    with tempfile.TemporaryDirectory() as folder:
        config = configure(cfg, settings, Path(folder))
        write_noise(Path(folder), config.run.batch, config.data.resolution)
        rows = measure(config, contestants, repeats, processor_time)
    device = select_device(config.run.device)
    rates = rates_of_the_machine(device, meter_of(device, processor_time))
    machine = (
        f"{status(device)}; {select_precision(config.run.precision, device)}; "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}; {platform.machine()}"
    )
    click.echo(
        f"{config.preset}, {config.data.resolution} px, batch {config.run.batch}; {machine}\n"
        f"convolution {rates['convolution_gflop_per_s']:.0f} GFLOP/s, "
        f"copy {rates['copy_gb_per_s']:.1f} GB/s"
    )
    for line in table(rows, config.run.batch, rates):
        click.echo(line)
    if json_file:
        record = {"config": config.model_dump(mode="json"), "machine": machine}
        json_file.write_text(json.dumps(record | rates | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
