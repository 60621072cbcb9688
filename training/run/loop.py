"""A training run in its folder: ticks, snapshots, checkpoints, metrics."""

import functools
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnnlib import (
    StopSignals,
    UserError,
    atomic_write,
    code_version,
    first_line,
    keep_freed_memory,
    remove_leftovers,
    say_now,
)
from metrics.poses import flip_consistency
from metrics.registry import compute
from metrics.runner import Runner
from torch_utils import distributed, ops
from torch_utils.devices import find_shared_cores, select_device
from torch_utils.images import to_float
from torch_utils.training_stats import Stat
from torch_utils.watchdog import is_broken_connection
from training import old_names
from training.config import Config, config_json
from training.data.dataset import ImageDataset, LabelUse
from training.evaluation.networks import EvaluatedNetwork, open_evaluation_data
from training.files.network_file import save_network
from training.files.transfer import start_from
from training.outputs.figures import save_image, save_image_grid
from training.outputs.objects import latents_of_seeds
from training.run import checkpoint
from training.run.after_snapshot import AfterSnapshot
from training.run.depth_trial import DepthTrial
from training.run.geod_snapshots import geod_pictures
from training.run.reporting import Reporter, duration
from training.run.run_folder import (
    checkpoints,
    images_in,
    kimg_tag,
    locked,
    rename_unused,
    surplus_networks,
)
from training.run.snapshots import snapshot_pictures
from training.step import Trainer

PICTURED = 32  # latents and photographs in the pictures of a snapshot
STEPS_TIMED = 4  # until the first estimate of the time; the first one is not counted
FEW_IMAGES = 2000  # fewer overfit D without augmentation (Karras et al. 2020b)
LONG_RUN = 14 * 24 * 3600  # seconds
# What processes tell each other before a step, beside the number of a signal; the largest counts.
_GO_ON, _CHECKPOINT_DUE, _DATA_FAILED = -1, 0, 1000
UPLOAD_PATIENCE = 600.0  # seconds for the command after the last snapshot
UPLOAD_PATIENCE_STOPPED = 20.0  # the same in a run that ends early


def open_dataset(config: Config) -> ImageDataset:
    """The photographs of a run.

    Raises:
        UserError: for bad data.
    """
    data, camera = config.data, config.camera
    labels: LabelUse = "ignore"  # whatever they are, for instance classes
    if camera.poses == "dataset":
        labels = "required"
    elif camera.intrinsics == "labels":
        labels = "optional"
    path, seed = str(data.path), config.run.seed
    return ImageDataset(
        path, data.resolution, data.crop, data.mirror, data.max_images, seed, labels
    )


def train(config: Config, folder: Path, resume: Path | None = None) -> int | None:
    """Train to `config.run.kimg` in a run folder; called in every process.

    If the folder has checkpoints, training resumes from the newest intact one.

    Args:
        config: the run's.
        folder: exists already.
        resume: one of the folder's checkpoints to go back to, or a network file whose weights a
            new run starts from.

    Returns:
        The number of the signal that ended the run early, or None.

    Raises:
        UserError: for bad data or files; where another process trains in the folder; where the
            result could not be written.
        TrainingDiverged: after too many steps that were not finite.
    """
    if config.run.ops is not None:
        ops.set_mode(config.run.ops)
    keep_freed_memory()
    is_first = distributed.rank() == 0
    with StopSignals(say_now if is_first else None) as stop, locked(folder if is_first else None):
        trainer = Trainer(config, open_dataset(config), select_device(config.run.device))
        run = Run(trainer, folder, resume, is_first)
        patience = UPLOAD_PATIENCE_STOPPED
        try:
            run.prepare()
            received = run.run(stop)
            if received is None:
                patience = UPLOAD_PATIENCE
            return received
        finally:
            run.close(patience)


class Run:
    """A trainer at work in its folder: ticks, snapshots, checkpoints."""

    def __init__(self, trainer: Trainer, folder: Path, resume: Path | None, is_first: bool):
        self.trainer, self.folder, self.config = trainer, folder, trainer.config
        self.is_first = is_first
        self.tick, self.tick_started_at = 0, 0  # number, images so far
        self.saved = True  # whether all files of the last snapshot or stop were written
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None  # the checkpoint under way
        self._checkpoint_at = time.monotonic()
        self._waited = 0.0  # seconds for photographs, in this tick
        self._averaged = 0  # bytes of gradients, up to this tick
        self.notes = [f"{len(trainer.dataset)} images of {trainer.dataset.name}"]
        self.notes += trainer.dataset.notes
        self.depth_trial = DepthTrial(trainer, lambda line: self.reporter.say(line))
        if known := checkpoints(folder):
            self._resume(known, resume if resume in known else known[0])
        elif resume is not None:
            self.notes.append(start_from(resume, trainer.generator, trainer.discriminator))
            trainer.start_averages()
        run = self.config.run
        if run.metrics:
            self.evaluation_data = open_evaluation_data(self.config.data, run.seed)
        self.reporter = Reporter(
            folder if is_first else None, run.kimg, trainer.kimg, run.write_errors == "stop"
        )
        self.after_snapshot = None
        if is_first and run.after_snapshot is not None:
            self.after_snapshot = AfterSnapshot(run.after_snapshot, self._warn_of_command)

    def _resume(self, known: list[Path], wanted: Path) -> None:
        """Load checkpoint `wanted`, or the newest intact one before it."""
        found = checkpoint.load_newest(known[known.index(wanted) :])
        self.notes += self.trainer.load_state_dict(found.state["trainer"])
        self.tick, self.tick_started_at = found.state["tick"], found.state["tick_started_at"]
        if (trial := found.state.get("depth_trial")) is not None:
            self.depth_trial.load_state_dict(trial)
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
        if trainer.supervisor is not None:
            self.notes.append(trainer.supervisor.note)
        self.notes += _advice(config, len(trainer.dataset))
        processes = f"{distributed.world_size()} process(es) on {trainer.device.type}"
        if trainer.device.type == "cpu":
            processes += f", {torch.get_num_threads()} thread(s) each"
        self.notes.append(f"{processes}, {trainer.precision}")
        if self.is_first:
            self.notes += find_shared_cores(trainer.device)
        self.notes.append(ops.status(trainer.device))
        if self._finished():
            self.notes.append(f"{trainer.kimg:.2f} kimg are done already: --kimg takes it further")
        if config.run.wandb is not None:
            self.reporter.mirror(config.run.wandb, config.model_dump(mode="json"))
        self.reporter.say_environment()
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
        timer = _StepTimer()
        trainer.stop_waiting = lambda: stop.received is not None

        def go_on() -> bool:
            self.reporter.progress(trainer.kimg)
            return self._prepare_step(stop)[0] <= _CHECKPOINT_DUE

        while not self._finished():
            if self.depth_trial.look(go_on):
                clock, counted_from = time.time(), trainer.images_processed
            reason, failure = self._prepare_step(stop)
            if reason > _CHECKPOINT_DUE:
                return self._stop_early(reason, failure)
            if reason == _CHECKPOINT_DUE:
                self._save_checkpoint()
            trainer.step()
            self._look_at_writing()
            self._estimate_once(timer)
            self.reporter.progress(trainer.kimg)
            finished = self._finished()
            if trainer.images_processed - self.tick_started_at >= images_in(run.tick) or finished:
                self._end_tick(time.time() - clock, trainer.images_processed - counted_from)
                if self.tick % run.snap == 0 or finished:
                    self._snapshot()
                clock, counted_from = time.time(), trainer.images_processed
        self._require_saved()
        return None

    def _finished(self) -> bool:
        return self.trainer.images_processed >= images_in(self.config.run.kimg)

    def close(self, patience: float) -> None:
        """Finish what is being written; wait `patience` seconds for the command after snapshots."""
        self._writer.shutdown()
        if self._writing is not None and (error := self._writing.exception()):
            self.reporter.say(f"WARNING: the last checkpoint could not be written ({error})")
        if self.after_snapshot is not None:
            self.after_snapshot.close(patience)
        self.reporter.close()

    def _prepare_step(self, stop: StopSignals) -> tuple[int, UserError | None]:
        """Fetch photographs.

        Returns:
            The largest reason of all processes for not simply going on, and this one's error.
        """
        failure = self._fetch()
        return distributed.largest(self._reason(stop, failure)), failure

    def _fetch(self) -> UserError | None:
        """Have the trainer read its next photographs; the error where they cannot be read."""
        started = time.monotonic()
        try:
            self.trainer.fetch()
        except UserError as error:
            return error
        finally:
            self._waited += time.monotonic() - started
        return None

    def _reason(self, stop: StopSignals, failure: UserError | None) -> int:
        """This process's, for not simply going on."""
        if stop.received or failure:
            return stop.received or _DATA_FAILED
        minutes = self.config.run.checkpoint_minutes
        if minutes is None or time.monotonic() - self._checkpoint_at < 60 * minutes:
            return _GO_ON
        return _CHECKPOINT_DUE

    def _stop_early(self, reason: int, failure: UserError | None) -> int:
        """Save; then return the signal, or raise UserError where photographs failed."""
        trainer = self.trainer
        self._finish_writing()
        self.saved = True
        self._save_checkpoint()
        if reason == _DATA_FAILED:
            message = distributed.first_message(None if failure is None else str(failure))
            self._require_saved(message)
            raise UserError(
                f"{message}; training up to {trainer.kimg:.2f} kimg is saved: mend the data, "
                "then --resume latest"
            )
        self._require_saved()
        self.reporter.say(
            f"stopped at {trainer.kimg:.2f} kimg; to go on, run the same command with "
            "--resume latest"
        )
        return reason

    def _require_saved(self, reason: str = "") -> None:
        """Raises UserError, in all processes, where the last files of the run were not written."""
        self._finish_writing()
        if distributed.any_process(not self.saved):
            raise UserError(
                f"{reason + '; ' if reason else ''}the state at {self.trainer.kimg:.2f} kimg could "
                f"not be written to {self.folder}: make room, then --resume latest goes on from "
                "the last checkpoint"
            )

    def _estimate_once(self, timer: "_StepTimer") -> None:
        seconds = timer.lap()
        if seconds is None:
            return
        run = self.config.run
        steps = round((images_in(run.kimg) - self.trainer.images_processed) / run.batch)
        self.reporter.estimate(seconds, steps)
        if self.trainer.device.type == "cpu" and seconds * steps > LONG_RUN:
            self.reporter.say(
                f"WARNING: no GPU is used, and this preset would take {duration(seconds * steps)}: "
                "a smaller --set data.resolution, smaller networks (--cfg toy shows some) or "
                "--kimg shorten it"
            )

    def _end_tick(self, seconds: float, images: int) -> None:
        """seconds, images: that have passed in this tick, since the start of this process."""
        trainer = self.trainer
        self.tick += 1
        self.tick_started_at = trainer.images_processed
        stats = trainer.stats.collect()
        health = {
            "data_wait": distributed.largest(round(1000 * self._waited)) / (1000 * seconds),
            "gradient_mb": (trainer.averager.bytes_averaged - self._averaged)
            / (images / self.config.run.batch)
            / 1e6,
        }
        self._waited, self._averaged = 0.0, trainer.averager.bytes_averaged
        if self.is_first:
            stats["pose/flip_correlation"] = Stat(PICTURED, self._flip_correlation(), 0.0)
        self.reporter.tick(self.tick, trainer.kimg, seconds / images * 1000, stats, health)
        self.reporter.watch_for_collapse(stats, self.config.rendering.box_warp)
        self.reporter.watch_poses(stats, trainer.kimg)

    def _flip_correlation(self) -> float:
        """Correlation of D's yaws of flipped photographs with the flipped yaws."""
        trainer = self.trainer
        network = EvaluatedNetwork(trainer.averaged_generator, trainer.averaged_discriminator)
        images = self._photographs.to(trainer.device)
        both = (network.estimate_directions(x).cpu() for x in (images, images.flip(-1)))
        return flip_consistency(*both).yaw_correlation

    def _snapshot(self) -> None:
        """The checkpoint comes last: what was not written before it will be after a resume."""
        self._finish_writing()
        self.saved = True
        if self.is_first:
            self.saved = self.reporter.guard(self._save_network)
            if self.saved and self.after_snapshot is not None:
                self.after_snapshot(self.folder / self._network_name)
            self.reporter.guard(self._save_pictures)
        self._save_checkpoint()
        if self.config.run.metrics:
            self._measure()

    def _measure(self) -> None:
        """Metrics of the averaged networks, by all processes; one that fails costs a warning."""
        trainer, data = self.trainer, self.evaluation_data
        networks = trainer.averaged_generator, trainer.averaged_discriminator
        context = data.context(*networks, Runner(trainer.device))
        for name in self.config.run.metrics:
            try:
                result = compute(name, context)
            except Exception as error:
                if is_broken_connection(error):
                    raise
                self.reporter.say(f"WARNING: no {name} ({first_line(error)}); going on")
            else:
                self.reporter.metric(result, trainer.kimg, self._network_name)

    def _save_checkpoint(self) -> None:
        """Have all state written beside training; called by all processes."""
        self._finish_writing()
        state = {
            "trainer": self.trainer.state_dict(),
            "tick": self.tick,
            "tick_started_at": self.tick_started_at,
            "depth_trial": self.depth_trial.state_dict(),
        }
        self._checkpoint_at = time.monotonic()
        if self.is_first:
            path = self.folder / f"checkpoint-{kimg_tag(self.trainer.kimg)}.pt"
            copied = checkpoint.copy_in_main_memory(state)
            self._writing = self._writer.submit(
                checkpoint.save_checkpoint, path, copied, self.config
            )

    def _look_at_writing(self) -> None:
        """Finish with a checkpoint that is written, or could not be."""
        if self._writing is not None and self._writing.done():
            self._finish_writing()

    def _finish_writing(self) -> None:
        """Wait for the checkpoint under way; older ones go."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        self.saved = self.reporter.guard(writing.result) and self.saved
        for old in checkpoints(self.folder)[self.config.run.keep :]:
            self.reporter.guard(old.unlink)

    def _warn_of_command(self, reason: str) -> None:
        self.reporter.warn_once("command", f"run.after_snapshot failed ({reason}); going on")

    @property
    def _network_name(self) -> str:
        return f"network-{kimg_tag(self.trainer.kimg)}.safetensors"

    def _save_network(self) -> None:
        trainer, run = self.trainer, self.config.run
        provenance = {
            "kimg": trainer.kimg,
            "data": trainer.dataset.name,
            "seed": run.seed,
            "code": code_version(),
            "torch": torch.__version__,
        }
        path = self.folder / self._network_name
        inverse_renderer = None
        if trainer.supervisor is not None and self.config.geod.in_network_files:
            inverse_renderer = trainer.supervisor.network
        save_network(
            path,
            trainer.averaged_generator,
            trainer.averaged_discriminator,
            provenance,
            inverse_renderer=inverse_renderer,
        )
        if run.keep_networks is not None:
            every = (run.keep_networks_every or 0) * run.tick * run.snap
            for old in surplus_networks(self.folder, run.keep_networks, every):
                old.unlink()

    def _save_config(self) -> None:
        with atomic_write(self.folder / "config.json") as temporary:
            temporary.write_text(config_json(self.config, indent=2) + "\n")

    def _save_photographs(self) -> None:
        save_image_grid(self.folder / "reals.png", self._photographs)

    def _save_pictures(self) -> None:
        trainer, config = self.trainer, self.config
        intrinsics = trainer.dataset.all_intrinsics
        if config.camera.intrinsics == "labels" and intrinsics is not None:
            intrinsics = intrinsics[torch.arange(PICTURED) % len(intrinsics)]
        else:
            intrinsics = None
        generator, discriminator = trainer.averaged_generator, trainer.averaged_discriminator
        z = latents_of_seeds(range(PICTURED), config.generator.z_dim).to(trainer.device)
        inputs = z, intrinsics, self._photographs.to(trainer.device)
        size = config.run.snapshot_resolution
        psi = float(trainer.feedback.truncation)
        pictures = snapshot_pictures(generator, discriminator, *inputs, size, psi)
        if trainer.supervisor is not None:
            pictures |= geod_pictures(trainer.supervisor.network, generator, *inputs, psi)
        for name, picture in pictures.items():
            save_image(self.folder / f"{name}-{kimg_tag(trainer.kimg)}.png", picture)
        arrays = {name: np.asarray(picture.convert("RGB")) for name, picture in pictures.items()}
        self.reporter.pictures(arrays, trainer.kimg)

    @functools.cached_property
    def _photographs(self) -> Tensor:
        """The same few in every snapshot, in [-1, 1]."""
        dataset = self.trainer.dataset
        spread = np.linspace(0, len(dataset) - 1, min(PICTURED, len(dataset))).astype(int)
        return to_float(torch.stack([dataset[int(i)] for i in spread]))


class _StepTimer:
    """Seconds per step, once, after the first few steps; the first one of all is not counted."""

    def __init__(self) -> None:
        self._steps, self._started_at = 0, 0.0

    def lap(self) -> float | None:
        """Call after each step; returns a number once."""
        self._steps += 1
        if self._steps == 1:
            self._started_at = time.time()
        if self._steps != 1 + STEPS_TIMED:
            return None
        return (time.time() - self._started_at) / STEPS_TIMED


def _advice(config: Config, images: int) -> list[str]:
    """Settings that fit this run's data better, where that is plain from their number."""
    if images < FEW_IMAGES and config.augment.mode == "noaug":
        return [
            f"{images} images are few, D may overfit: --aug ada augments them, "
            "--resume FILE starts from a network trained on more of their kind"
        ]
    return []


def _changes(before: dict[str, Any], config: Config) -> list[str]:
    """A line for each setting that differs from those of before.

    Settings younger than the checkpoint were at their defaults, which change nothing.
    """
    before = old_names.current_config(before)
    defaults = Config().model_dump(mode="json")
    return [
        f"{section}.{field} changes from {old} to {value}"
        for section, fields in config.model_dump(mode="json").items()
        if isinstance(fields, dict)
        for field, value in fields.items()
        if value != (old := (defaults[section] | before.get(section, {}))[field])
    ]
