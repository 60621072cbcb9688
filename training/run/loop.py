"""A training run in its folder: ticks, snapshots, checkpoints, metrics."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib import StopSignals, atomic_write, code_version, remove_leftovers
from metrics.context import Context
from metrics.registry import compute
from metrics.runner import Runner
from torch_utils import distributed, ops
from torch_utils.images import to_float
from torch_utils.memory import keep_freed_memory
from training.config import Config
from training.data.dataset import ImageDataset
from training.evaluation.networks import EvaluatedNetwork, open_evaluation_data
from training.files.network_file import save_network
from training.files.transfer import start_from
from training.outputs import figures
from training.run import checkpoint
from training.run.reporting import Reporter
from training.run.run_folder import checkpoints, kimg_tag, rename_unused
from training.step import Trainer

PICTURED = 32  # latents and photographs in the pictures of a snapshot


def device_of(config: Config) -> torch.device:
    """Where this process computes."""
    if config.run.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def open_dataset(config: Config) -> ImageDataset:
    """The photographs of a run. Raises UserError for bad data."""
    data = config.data
    return ImageDataset(
        data.path, data.resolution, data.crop, data.mirror, data.max_images, config.run.seed
    )


def train(config: Config, folder: Path, resume: Path | None = None) -> int | None:
    """Train to `config.run.kimg`, in a run folder; called in every process.

    A folder that holds checkpoints is gone on with, from the newest that is whole. resume: one of
    these checkpoints to go back to, or a network file to start a new run from. Returns the number
    of the signal that ended the run early, or None. Raises UserError for bad data or files,
    TrainingDiverged.
    """
    if config.run.ops is not None:
        ops.set_mode(config.run.ops)
    keep_freed_memory()
    with StopSignals() as stop:
        run = _Run(Trainer(config, open_dataset(config), device_of(config)), folder, resume)
        try:
            run.prepare()
            return run.run(stop)
        finally:
            run.reporter.close()


class _Run:
    """A trainer at work in its folder: ticks, snapshots, checkpoints."""

    def __init__(self, trainer: Trainer, folder: Path, resume: Path | None):
        self.trainer, self.folder, self.config = trainer, folder, trainer.config
        self.tick, self.tick_started_at = 0, 0  # number, images seen
        self.is_first = distributed.rank() == 0
        self.notes = [f"{len(trainer.dataset)} images of {trainer.dataset.name}"]
        if known := checkpoints(folder):
            self._resume(known, resume if resume in known else known[0])
        elif resume is not None:
            self.notes.append(start_from(resume, trainer.generator, trainer.discriminator))
            trainer.averaged_generator.load_state_dict(trainer.generator.state_dict())
        run = self.config.run
        if run.metrics:
            self.evaluation_data = open_evaluation_data(self.config.data, run.seed)
        self.reporter = Reporter(
            folder if self.is_first else None, run.kimg, trainer.kimg, run.write_errors == "stop"
        )

    def _resume(self, known: list[Path], wanted: Path) -> None:
        """Take up the state of checkpoint `wanted`, or of the newest whole one before it."""
        found = checkpoint.load_newest(known[known.index(wanted) :])
        threads = torch.get_num_threads()
        self.trainer.load_state_dict(found.state["trainer"])
        if torch.get_num_threads() != threads:
            self.notes.append(
                f"{torch.get_num_threads()} threads as before, not {threads}, for the same results"
            )
        self.tick, self.tick_started_at = found.state["tick"], found.state["tick_started_at"]
        self.notes += [f"WARNING: {fault}; trying the one before" for fault in found.faults]
        distributed.barrier()  # all have looked at the folder before it changes
        if self.is_first:
            remove_leftovers(self.folder)
            for path in known[: known.index(found.path)]:
                self.notes.append(f"{path.name} is kept as {rename_unused(path).name}")
        self.notes.append(f"resuming from {found.path}")
        self.notes += _changes(json.loads(found.state["config"]), self.config)

    def prepare(self) -> None:
        """Say what is about to happen; show photographs, and images before all training."""
        trainer, config = self.trainer, self.config
        if config.camera.intrinsics == "labels" and trainer.dataset.all_intrinsics is None:
            self.notes.append(
                f"no camera labels: all images get the preset's focal length "
                f"{config.camera.focal:.4f}"
            )
        self.notes.append(f"{distributed.world_size()} process(es) on {trainer.device.type}")
        self.notes.append(ops.status(trainer.device))
        self.notes.append(f"code version {code_version()}")
        if trainer.kimg >= config.run.kimg:
            self.notes.append(f"{trainer.kimg:.2f} kimg are done already: --kimg takes it further")
        for note in self.notes:
            self.reporter.say(note)
        if self.is_first:
            self.reporter.guard(self._save_config)
        if self.is_first and trainer.steps == 0:
            self.reporter.guard(self._save_photographs)
            self.reporter.guard(self._save_pictures)

    def run(self, stop: StopSignals) -> int | None:
        """Step until the end, or until asked to stop; then save. Returns the signal, if any."""
        trainer, run = self.trainer, self.config.run
        clock, counted_from = time.time(), trainer.images_processed
        while trainer.kimg < run.kimg:
            if signal := distributed.largest(stop.received or 0):
                self._save_checkpoint()
                self.reporter.say(
                    f"stopped at {trainer.kimg:.2f} kimg; to go on, run the same command with "
                    "--resume latest"
                )
                return signal
            trainer.step()
            self.reporter.progress(trainer.kimg)
            finished = trainer.kimg >= run.kimg
            if trainer.images_processed - self.tick_started_at >= run.tick * 1000 or finished:
                seconds = (time.time() - clock) / (trainer.images_processed - counted_from) * 1000
                self._end_tick(seconds)
                if self.tick % run.snap == 0 or finished:
                    self._snapshot()
                clock, counted_from = time.time(), trainer.images_processed
        return None

    def _end_tick(self, seconds_per_kimg: float) -> None:
        trainer = self.trainer
        self.tick += 1
        self.tick_started_at = trainer.images_processed
        stats = trainer.stats.collect()
        self.reporter.tick(self.tick, trainer.kimg, seconds_per_kimg, stats)
        self.reporter.watch_for_collapse(stats, self.config.rendering.box_warp)

    def _snapshot(self) -> None:
        """The checkpoint comes last: what was not written before it will be after a resume."""
        if self.is_first:
            self.reporter.guard(self._save_network)
            self.reporter.guard(self._save_pictures)
        self._save_checkpoint()
        if self.config.run.metrics:
            self._measure()

    def _measure(self) -> None:
        """Metrics of the averaged generator, by all processes; one that fails costs a warning."""
        trainer, data = self.trainer, self.evaluation_data
        context = Context(
            EvaluatedNetwork(trainer.averaged_generator, trainer.discriminator, data.labels),
            data.photographs,
            data.shown,
            data.true_directions,
            Runner(trainer.device),
        )
        for name in self.config.run.metrics:
            try:
                result = compute(name, context)
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                self.reporter.say(f"WARNING: no {name} ({reason}); going on")
            else:
                self.reporter.metric(result, trainer.kimg, self._network_name)

    def _save_checkpoint(self) -> None:
        state = {
            "trainer": self.trainer.state_dict(),
            "tick": self.tick,
            "tick_started_at": self.tick_started_at,
        }
        if self.is_first:
            path = self.folder / f"checkpoint-{kimg_tag(self.trainer.kimg)}.pt"
            self.reporter.guard(lambda: checkpoint.save_checkpoint(path, state, self.config))
            for old in checkpoints(self.folder)[self.config.run.keep :]:
                self.reporter.guard(old.unlink)

    @property
    def _network_name(self) -> str:
        return f"network-{kimg_tag(self.trainer.kimg)}.safetensors"

    def _save_network(self) -> None:
        trainer = self.trainer
        provenance = {
            "kimg": trainer.kimg,
            "data": trainer.dataset.name,
            "seed": self.config.run.seed,
            "code": code_version(),
            "torch": torch.__version__,
        }
        path = self.folder / self._network_name
        save_network(path, trainer.averaged_generator, trainer.discriminator, provenance)

    def _save_config(self) -> None:
        with atomic_write(self.folder / "config.json") as temporary:
            temporary.write_text(self.config.model_dump_json(indent=2) + "\n")

    def _save_photographs(self) -> None:
        figures.save_image_grid(self.folder / "reals.png", self._photographs())

    def _save_pictures(self) -> None:
        trainer, config = self.trainer, self.config
        z = np.random.RandomState(config.run.seed).randn(PICTURED, config.generator.z_dim)
        intrinsics = trainer.dataset.all_intrinsics
        if config.camera.intrinsics == "labels" and intrinsics is not None:
            intrinsics = intrinsics[torch.arange(PICTURED) % len(intrinsics)]
        else:
            intrinsics = None
        figures.save_snapshot_pictures(
            self.folder,
            kimg_tag(trainer.kimg),
            trainer.averaged_generator,
            trainer.discriminator,
            torch.from_numpy(z).float().to(trainer.device),
            intrinsics,
            self._photographs().to(trainer.device),
        )

    def _photographs(self) -> Tensor:
        """The same few in every snapshot, in [-1, 1]."""
        dataset = self.trainer.dataset
        spread = np.linspace(0, len(dataset) - 1, min(PICTURED, len(dataset))).astype(int)
        return to_float(torch.stack([dataset[int(i)] for i in spread]))


def _changes(before: dict[str, Any], config: Config) -> list[str]:
    """A line for each setting that differs from those of before.

    Settings younger than the checkpoint were at their defaults, which change nothing.
    """
    defaults = Config().model_dump(mode="json")
    return [
        f"{section}.{field} changes from {old} to {value}"
        for section, fields in config.model_dump(mode="json").items()
        if isinstance(fields, dict)
        for field, value in fields.items()
        if value != (old := (defaults[section] | before.get(section, {}))[field])
    ]
