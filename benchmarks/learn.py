"""Minutes until the toy preset has learned: until poses and images are within reach of the truth.

    python -m benchmarks.learn --seeds 0,1 --outdir runs/learn

Each seed trains until every goal is met at one measurement. The time is that of training, by the
clock, without measuring. A second call with the same folder goes on where the first was stopped.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from dnnlib import Command, UserError, atomic_write
from metrics.registry import check_names, compute
from metrics.runner import Runner
from torch_utils import ops
from torch_utils.devices import select_device
from training.config import Config, parse_settings
from training.data.toy_set import toy_dataset_path
from training.evaluation.networks import open_evaluation_data
from training.presets import build_config
from training.run.checkpoint import load_checkpoint, save_checkpoint
from training.run.loop import open_dataset
from training.step import Trainer

GOALS = ("pose_error=6", "fd1k_full-effnet=60")


class Course(NamedTuple):
    """How far a seed has come. good: whether it met the goals; found: the last values."""

    kimg: float = 0.0
    minutes: float = 0.0
    good: bool = False
    found: dict[str, float] = {}

    def line(self, seed: int) -> str:
        """For the terminal."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.found.items())
        end = ": good" if self.good else ""
        return f"seed {seed}: {self.kimg:g} kimg, {self.minutes:.1f} minutes, {values}{end}"


def parse_goals(texts: tuple[str, ...]) -> dict[str, float]:
    """('pose_error=6',) -> {'pose_error': 6.0}.

    Raises:
        UserError: where one is not METRIC=NUMBER.
    """
    goals = {}
    for text in texts:
        name, _, limit = text.partition("=")
        try:
            goals[name] = float(limit)
        except ValueError as error:
            raise UserError(f"--goal {text}: write METRIC=NUMBER, as in {GOALS[0]}") from error
    check_names(goals)
    return goals


def measured(trainer: Trainer, names: list[str]) -> dict[str, float]:
    """The main value of each metric for the averaged networks."""
    config = trainer.config
    data = open_evaluation_data(config.data, config.run.seed)
    networks = trainer.averaged_generator, trainer.averaged_discriminator
    context = data.context(*networks, Runner(trainer.device))
    results = [compute(name, context) for name in names]
    return {name: next(iter(r.values.values())) for name, r in zip(names, results, strict=True)}


class Pupil:
    """One seed's training, its checkpoint, and the time that it took."""

    def __init__(self, config: Config, checkpoint: Path):
        self.trainer = Trainer(config, open_dataset(config), select_device(config.run.device))
        self.checkpoint, self.course = checkpoint, Course()
        if checkpoint.exists():
            state: dict[str, Any] = load_checkpoint(checkpoint)
            self.trainer.load_state_dict(state["trainer"])
            self.course = Course(**state["course"])

    def learn(self, goals: dict[str, float], every: float) -> Course:
        """Train for `every` kimg, measure, save."""
        start, until = time.perf_counter(), self.course.kimg + every
        while self.trainer.kimg < until:
            self.trainer.step()
        minutes = self.course.minutes + (time.perf_counter() - start) / 60
        found = measured(self.trainer, list(goals))
        good = all(found[name] <= limit for name, limit in goals.items())
        self.course = Course(self.trainer.kimg, minutes, good, found)
        state = {"trainer": self.trainer.state_dict(), "course": self.course._asdict()}
        save_checkpoint(self.checkpoint, state, self.trainer.config)
        return self.course


def parse_seeds(text: str) -> list[int]:
    """'0,1' -> [0, 1].

    Raises:
        UserError: where one is no number.
    """
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds {text}: write numbers, as in 0,1") from error


def configure(seed: int, changes: dict[str, Any]) -> Config:
    """The toy preset with that seed and changes, on the toy set unless they name other data."""
    config = build_config("toy", {"run.seed": seed} | changes)
    if config.data.path is not None:
        return config
    path = str(toy_dataset_path(config.data.resolution))
    return build_config("toy", {"run.seed": seed, "data.path": path} | changes)


def summary(courses: list[Course]) -> str:
    """The result, and the median where every seed has come to one."""
    minutes = [course.minutes for course in courses if course.good]
    text = f"{len(minutes)} of {len(courses)} good"
    if len(minutes) < len(courses):
        return text
    return f"{text}, median: {statistics.median(minutes):.1f} minutes"


@click.command(cls=Command)
@click.option("--seeds", default="0,1", show_default=True, help="Separated by commas.")
@click.option("--outdir", type=click.Path(path_type=Path), default="runs/learn", show_default=True)
@click.option(
    "--goal",
    "goals",
    multiple=True,
    default=GOALS,
    show_default=True,
    metavar="METRIC=NUMBER",
    help="A metric and its largest value for a good network.",
)
@click.option("--every", default=2.0, show_default=True, help="Kimg between measurements.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.FIELD=VALUE", help="Any field.")
@click.option("--threads", type=click.IntRange(1), help="[default: torch's]")
def main(
    seeds: str,
    outdir: Path,
    goals: tuple[str, ...],
    every: float,
    settings: tuple[str, ...],
    threads: int | None,
) -> None:
    """Train until networks are good, and tell after how many minutes: the median of the seeds."""
    limits, numbers, changes = parse_goals(goals), parse_seeds(seeds), parse_settings(settings)
    if threads:
        torch.set_num_threads(threads)
    outdir.mkdir(parents=True, exist_ok=True)
    courses = {}
    for seed in numbers:
        pupil = Pupil(configure(seed, changes), outdir / f"seed-{seed}.pt")
        while not pupil.course.good and pupil.trainer.kimg < pupil.trainer.config.run.kimg:
            click.echo(pupil.learn(limits, every).line(seed))
        courses[seed] = pupil.course
    with atomic_write(outdir / "learn.json") as temporary:
        record = {seed: course._asdict() for seed, course in courses.items()}
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    click.echo(f"{ops.status()}; {torch.get_num_threads()} threads; {pupil.trainer.precision}")
    click.echo(summary(list(courses.values())))


if __name__ == "__main__":
    main()
