"""Time of a training iteration against the published schedule in plain torch, taken in alternation.

    python benchmarks/step.py --naive          the paper's faces at 128 px, batch 4, full capacity
    python benchmarks/step.py --cfg toy --naive

An iteration is one main phase of G and of D, and the regularisers in proportion to how often they
run.
"""

import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import click
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import naive as published  # noqa: E402
from torch_utils import ops  # noqa: E402
from training import losses  # noqa: E402
from training.config import Config, build_config, parse_settings  # noqa: E402
from training.loop import Trainer, device_of, open_dataset  # noqa: E402

FFHQ_128 = {"data.resolution": 128, "run.batch": 4}


def make_trainer(config: Config) -> Trainer:
    return Trainer(config, open_dataset(config), device_of(config))


def write_noise(folder: Path, count: int, resolution: int) -> None:
    """Photographs of nothing: the time does not depend on what they show."""
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (resolution, resolution, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def seconds_of_step(trainer: Trainer, steps: int) -> float:
    """One step that is number `steps` of the run, which decides what regularisers it holds."""
    trainer.steps = steps
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    trainer.step()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds_per_iteration(trainer: Trainer) -> float:
    """Amortised: most steps have no regulariser, every k-th has one."""
    loss = trainer.config.loss
    plain = seconds_of_step(trainer, 1)
    with_density = seconds_of_step(trainer, loss.density_every)
    with_both = seconds_of_step(trainer, loss.density_every * loss.r1_every)
    density, r1 = with_density - plain, with_both - with_density
    return plain + density / loss.density_every + r1 / loss.r1_every


def published_schedule():
    """A context in which a trainer's steps follow the published schedule in plain torch."""
    return mock.patch.multiple(
        losses,
        generator_main=published.generator_main,
        discriminator_main=published.discriminator_main,
    )


def seconds_naive(trainer: Trainer) -> float:
    mode = ops.get_mode()
    ops.set_mode("torch")
    try:
        with published_schedule():
            return seconds_per_iteration(trainer)
    finally:
        ops.set_mode(mode)


@click.command()
@click.option("--cfg", default="ffhq", show_default=True, help="Preset; ffhq runs at 128 px.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.FIELD=VALUE")
@click.option("--naive", is_flag=True, help="Also time the published schedule in plain torch.")
@click.option("--repeats", default=3, show_default=True, help="Iterations of each; medians count.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write JSON.")
def main(
    cfg: str, settings: tuple[str, ...], naive: bool, repeats: int, json_path: Path | None
) -> None:
    """Seconds per iteration, images per second, peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        changes = (FFHQ_128 if cfg == "ffhq" else {}) | parse_settings(settings)
        changes |= {"data.path": folder, "data.workers": 0}
        config = build_config(cfg, changes)
        write_noise(Path(folder), config.run.batch, config.data.resolution)
        trainer = make_trainer(config)
        contestants = {"this code": seconds_per_iteration}
        seconds_of_step(trainer, 1)  # warm-up: caches, kernels, optimiser state
        if naive:
            contestants["published schedule, plain torch"] = seconds_naive
        times: dict[str, list[float]] = {name: [] for name in contestants}
        memory = {}
        for _ in range(repeats):
            for name, measure in contestants.items():
                times[name].append(measure(trainer))
                memory.setdefault(name, peak_gb(trainer.device))
    report(config, trainer.device, times, memory, json_path)


def peak_gb(device: torch.device) -> float:
    """Of the process so far; the first contestant's is its own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(config, device, times, memory, json_path) -> None:
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(medians))
    click.echo(
        f"{config.preset} {config.data.resolution} px, batch {config.run.batch}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.processor()}"
    )
    for name, seconds in medians.items():
        click.echo(
            f"{name:34s} {seconds:9.3f} s/iteration {config.run.batch / seconds:8.2f} images/s "
            f"{memory[name]:6.2f} GB peak  {seconds / medians[first]:6.2f}x"
        )
    if json_path:
        record = {"seconds": times, "median": medians, "peak_gb": memory}
        json_path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
