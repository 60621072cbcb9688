"""The training loop: data, the four phases of a step, moving average, ticks, snapshots.

`Trainer` holds all that changes while training, so its state is all that a resume needs; `train`
runs it and keeps the run folder. Several processes run the same code; the first one writes.
"""

import copy
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dnnlib import StopSignals, UserError, atomic_write, remove_leftovers
from metrics.context import Context
from metrics.registry import compute
from metrics.runner import Runner
from torch_utils import distributed, ops
from torch_utils.memory import keep_freed_memory
from torch_utils.training_stats import StatsCollector
from training import cameras as camera
from training import losses
from training.augment import AdaController, Augmentation
from training.config import Config, OptimConfig
from training.data.dataset import Batch, ImageDataset, training_batches
from training.evaluation.networks import NetworkSubject, open_evaluation_data
from training.losses import Draws, Phase, Spectacles
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.outputs import figures as pictures
from training.run import checkpoint
from training.run.reporting import Reporter
from training.run.run_folder import checkpoints, kimg_tag, set_aside

POSES_SPREAD = 256  # latents that tell the spread of G's poses, in each pass
PICTURED = 32  # latents and photographs in the pictures of a snapshot
_INNER_DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class TrainingDiverged(UserError):
    """Losses or gradients were not finite too many steps in a row."""


class Trainer:
    """Networks, optimisers, augmentation, counters and random states of a run.

    config: the run's. dataset: the photographs. device: where this process computes. All processes
    start from the same weights; each draws its own latents and photographs.
    """

    def __init__(self, config: Config, dataset: ImageDataset, device: torch.device):
        if config.generator.pose != "learned":
            raise UserError("generator.pose=given cannot be trained, only sampled: use 'learned'")
        self.config, self.dataset, self.device = config, dataset, device
        torch.manual_seed(config.run.seed)
        self.generator = Generator(config).to(device)
        self.known_poses = known_poses(config, dataset)
        if self.known_poses is not None:
            self.generator.prior.fit(self.known_poses)
        self.discriminator = Discriminator(config).to(device)
        self.averaged_generator = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self._set_precision()
        loss, optim, augment = config.loss, config.optim, config.augment
        self.g_optimiser = _adam(self.generator, optim.g_lr, optim, loss.density_every)
        self.d_optimiser = _adam(self.discriminator, optim.d_lr, optim, loss.r1_every)
        self.augmentation = Augmentation(augment.p if augment.mode == "fixed" else 0.0).to(device)
        self.ada = AdaController(
            self.augmentation, augment.kimg, target=augment.target, interval=augment.every
        )
        self.stats = StatsCollector(device)
        self.steps = 0
        self.bad_steps = 0  # in a row
        torch.manual_seed(config.run.seed * 1_000_003 + 1 + distributed.rank())
        self._batches: Iterator[Batch] | None = None
        self._culprit = ""

    @property
    def images_seen(self) -> int:
        return self.steps * self.config.run.batch

    @property
    def kimg(self) -> float:
        return self.images_seen / 1000

    def step(self) -> None:
        """One iteration: G, its density term, D, its R1 term, then the moving average.

        Raises TrainingDiverged after too many steps in a row whose gradients were not finite.
        """
        g, d, loss = self.generator, self.discriminator, self.config.loss
        g.raw_resolution = raw_resolution_at(self.config, self.kimg)
        augment = None if self.config.augment.mode == "noaug" else self.augmentation
        seen = Spectacles(blur_sigma_at(self.config, self.kimg), augment)
        reals, labels = self._next_reals()
        updates = [
            self._update(
                self.g_optimiser,
                (losses.generator_main(g, d, self._draws(z), seen) for z in self._latents()),
            )
        ]
        if loss.density_weight and self.steps % loss.density_every == 0:
            phases = (
                losses.generator_density(g, z, *losses.density_draws(g, len(z), self.device))
                for z in self._latents()
            )
            updates.append(self._update(self.g_optimiser, phases, scale=loss.density_every))
        latents = self._latents()
        self._track_mean_w(torch.cat(latents))
        phases = (
            losses.discriminator_main(g, d, self._draws(z), real, seen, label)
            for z, real, label in zip(latents, reals, labels, strict=True)
        )
        updates.append(d_terms := self._update(self.d_optimiser, phases))
        if loss.gamma and self.steps % loss.r1_every == 0:
            phases = (
                losses.discriminator_r1(g, d, real, seen, label)
                for real, label in zip(reals, labels, strict=True)
            )
            updates.append(self._update(self.d_optimiser, phases, scale=loss.r1_every))
        self.steps += 1
        self._count_bad_step(bad=not all(updates))
        if d_terms and self.config.augment.mode == "ada":
            signs = torch.stack([terms["D/sign_real"].sum() for terms in d_terms]).sum()
            self.ada.step(distributed.all_reduce_sum(signs).item(), self.config.run.batch)
        self.stats.report("augment/p", self.augmentation.p)
        self._move_average()

    def _update(
        self, optimiser: torch.optim.Optimizer, phases: Iterable[Phase], scale: float = 1
    ) -> list[dict[str, Tensor]]:
        """Step along the mean gradient of a phase over micro-batches and processes.

        Parameters that the phase does not reach are left alone. scale makes up for a phase that is
        not run in every step. Returns the micro-batches' loss terms; none, and nothing has changed,
        when a gradient is not finite.
        """
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        optimiser.zero_grad(set_to_none=True)
        rounds = self._per_process // self._per_pass
        terms = []
        for phase in phases:
            (phase.loss * (scale / rounds)).backward(inputs=parameters)
            terms.append(phase.terms)
        distributed.average_gradients(parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not nn.utils.get_total_norm(gradients).isfinite():
            self._culprit = self._find_culprit(terms)
            return []
        for name, values in (item for part in terms for item in part.items()):
            self.stats.report(name, values)
        optimiser.step()
        return terms

    def _find_culprit(self, terms: list[dict[str, Tensor]]) -> str:
        """The first loss term, else the first gradient, that is not finite in this process."""
        for name, values in (item for part in terms for item in part.items()):
            if not values.isfinite().all():
                return f"loss term {name}"
        for network in (self.generator, self.discriminator):
            for name, parameter in network.named_parameters():
                if parameter.grad is not None and not parameter.grad.isfinite().all():
                    return f"gradient of {type(network).__name__}.{name}"
        return "a gradient in another process"

    def _count_bad_step(self, bad: bool) -> None:
        self.stats.report("steps_skipped", float(bad))
        self.bad_steps = self.bad_steps + 1 if bad else 0
        if self.bad_steps >= self.config.run.max_bad_steps:
            raise TrainingDiverged(
                f"{self.bad_steps} steps in a row were not finite, last: {self._culprit}; "
                "resume an earlier checkpoint with smaller learning rates or more R1"
            )

    @torch.no_grad()
    def _track_mean_w(self, z: Tensor) -> None:
        w = self.generator.mapping(z).mean(dim=0, keepdim=True)
        self.generator.mapping.update_w_avg(distributed.all_reduce_mean(w))

    @torch.no_grad()
    def _move_average(self) -> None:
        """Exponential moving average of the weights; buffers are copied."""
        run, optim = self.config.run, self.config.optim
        half_life = 1000 * (optim.ema_kimg or run.batch * 10 / 32)
        if optim.ema_rampup is not None:
            half_life = min(half_life, self.images_seen * optim.ema_rampup)
        decay = 0.5 ** (run.batch / max(half_life, 1e-8))
        averaged, current = self.averaged_generator, self.generator
        torch._foreach_lerp_(
            list(averaged.parameters()), list(current.parameters()), weight=1 - decay
        )
        torch._foreach_copy_(list(averaged.buffers()), list(current.buffers()))
        averaged.raw_resolution = current.raw_resolution

    @property
    def _per_process(self) -> int:
        return self.config.run.batch // distributed.world_size()

    @property
    def _per_pass(self) -> int:
        return self.config.run.batch_gpu or self._per_process

    def _split(self, batch: Tensor) -> list[Tensor]:
        return list(batch.split(self._per_pass))

    def _latents(self) -> list[Tensor]:
        shape = (self._per_process, self.config.generator.z_dim)
        return self._split(torch.randn(shape, device=self.device))

    def _draws(self, z: Tensor) -> Draws:
        """What else chance decides, beside the latents."""
        config, intrinsics = self.config, self.generator.intrinsics
        mirror, mixing, pose = None, None, None
        if config.camera.intrinsics == "labels" and self.dataset.all_intrinsics is not None:
            known = self.dataset.all_intrinsics
            intrinsics = known[torch.randint(len(known), (len(z),))].to(self.device)
        if self.known_poses is not None:
            chosen = torch.randint(len(self.known_poses), (len(z),))
            pose = self.known_poses[chosen].to(self.device)
        elif config.camera.poses == "prior":
            pose = self.generator.prior.draw(len(z))
        # Known poses forbid a relief by themselves; unknown ones need the mirrored view.
        if (mirrors := config.camera.mirrors) and self.known_poses is None:
            mirror = mirrors[torch.randint(len(mirrors), ())]
        if config.generator.style_mixing and torch.rand(()) < config.generator.style_mixing:
            start = torch.randint(1, self.generator.backbone.synthesis.num_ws, ())
            mixing = (torch.randn_like(z), int(start))
        swapped = bool(config.camera.swap) and bool(torch.rand(()) < config.camera.swap)
        pose_z = None
        if config.loss.spread_weight and config.camera.poses == "learned":
            pose_z = torch.randn(POSES_SPREAD, config.generator.z_dim, device=self.device)
        return Draws(z, intrinsics, mirror, mixing, pose, swapped, pose_z)

    def _next_reals(self) -> tuple[list[Tensor], list[Tensor | None]]:
        """This process's share of the next photographs by passes, [B, 3, R, R] in [-1, 1], and the
        poses [B, 2] that D judges them by, if known."""
        if self._batches is None:
            run = self.config.run
            self._batches = training_batches(
                self.dataset,
                self._per_process,
                seed=run.seed,
                start=self.images_seen,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
                workers=self.config.data.workers,
                pin_memory=self.device.type == "cuda",
            )
        batch = next(self._batches)
        images = batch.images.to(self.device, non_blocking=True).to(torch.float32) / 127.5 - 1
        reals = self._split(images)
        if self.known_poses is None:
            return reals, [None] * len(reals)
        return reals, self._split(self.known_poses[batch.indices].to(self.device))

    def _set_precision(self) -> None:
        choice = self.config.run.precision
        if choice == "auto":
            choice = "fp16" if self.device.type == "cuda" else "fp32"
        for network in (self.generator, self.discriminator, self.averaged_generator):
            network.set_inner_dtype(_INNER_DTYPES[choice])

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs; to be called by all processes, complete on the first."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        random = {"cpu": distributed.gather_on_first(torch.get_rng_state())}
        if self.device.type == "cuda":
            random["cuda"] = distributed.gather_on_first(torch.cuda.get_rng_state(self.device))
        batch = self.config.run.batch
        counters = {"steps": self.steps, "batch": batch, "bad_steps": self.bad_steps}
        return parts | counters | {"random": random, "threads": torch.get_num_threads()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises UserError where that cannot be."""
        random, rank, processes = state["random"], distributed.rank(), len(state["random"]["cpu"])
        if processes != distributed.world_size():
            raise UserError(f"{processes} processes wrote the checkpoint: add --gpus {processes}")
        if state["batch"] != self.config.run.batch:
            raise UserError(f"the run's batch is {state['batch']}: add --batch {state['batch']}")
        for name, part in self._parts().items():
            try:
                part.load_state_dict(_with_rates_of(part, state[name]))
            except (RuntimeError, ValueError, KeyError) as error:
                raise UserError(
                    f"the checkpoint's {name} does not fit this configuration "
                    f"({' '.join(str(error).split())[:200]}): resume with the run's own settings"
                ) from error
        self.steps, self.bad_steps = state["steps"], state["bad_steps"]
        if self.device.type == "cpu":  # sums are rounded as they are shared among threads
            torch.set_num_threads(state["threads"])
        torch.set_rng_state(random["cpu"][rank])
        if self.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"][rank], self.device)

    def _parts(self) -> dict[str, Any]:
        return {
            "G": self.generator,
            "D": self.discriminator,
            "G_ema": self.averaged_generator,
            "g_optimiser": self.g_optimiser,
            "d_optimiser": self.d_optimiser,
            "augmentation": self.augmentation,
            "ada": self.ada,
            "stats": self.stats,
        }


def _adam(network: nn.Module, lr: float, optim: OptimConfig, every: int) -> torch.optim.Adam:
    """Adam, slowed down a little to make room for a regulariser that steps every `every` steps.

    StyleGAN2, appendix B: lr * c and beta^c with c = k / (k + 1).
    """
    c = every / (every + 1)
    parameters = [p for p in network.parameters() if p.requires_grad]
    betas = (optim.beta1**c, optim.beta2**c)
    return torch.optim.Adam(parameters, lr=lr * c, betas=betas, eps=optim.eps, fused=True)


def _with_rates_of(part: Any, state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's saved state, but with the learning rates of this run; others as they are."""
    if not isinstance(part, torch.optim.Optimizer):
        return state
    groups = [
        ours | {"params": saved["params"]}
        for ours, saved in zip(
            part.state_dict()["param_groups"], state["param_groups"], strict=True
        )
    ]
    return {"state": state["state"], "param_groups": groups}


def blur_sigma_at(config: Config, kimg: float) -> float:
    """Blur of D's images, in pixels: falls linearly to zero."""
    duration = config.loss.blur_kimg * config.run.batch / 32
    return config.loss.blur_sigma * max(1 - kimg / duration, 0) if duration else 0.0


def raw_resolution_at(config: Config, kimg: float) -> int:
    """Resolution of the rendering: grows linearly where the configuration says so."""
    rendering = config.rendering
    start, end = rendering.raw_resolution, rendering.raw_resolution_end
    if end is None:
        return start
    return round(start + (end - start) * min(kimg / rendering.raw_growth_kimg, 1))


def device_of(config: Config) -> torch.device:
    """Where this process computes."""
    if config.run.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def open_dataset(config: Config) -> ImageDataset:
    """The photographs of a run. Raises UserError for bad data."""
    data = config.data
    dataset = ImageDataset(
        data.path, data.resolution, data.crop, data.mirror, data.max_images, config.run.seed
    )
    if config.camera.poses == "dataset" and dataset.all_cam2world is None:
        raise UserError(
            f"poses from the data set: {data.path} has no camera labels (dataset.json); "
            "leave --poses dataset out, since PoF3D needs no poses, or add labels"
        )
    return dataset


def known_poses(config: Config, dataset: ImageDataset) -> Tensor | None:
    """(h, v) [N, 2] of all photographs, where training is to know them."""
    if config.camera.poses != "dataset":
        return None
    return camera.pose_from_cam2world(dataset.all_cam2world, config.camera.mean_h)


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
            return run.go(stop)
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
            self._go_on(known, resume if resume in known else known[0])
        elif resume is not None:
            self.notes.append(
                checkpoint.start_from(resume, trainer.generator, trainer.discriminator)
            )
            trainer.averaged_generator.load_state_dict(trainer.generator.state_dict())
        run = self.config.run
        if run.metrics:
            self.evaluation_data = open_evaluation_data(self.config.data, run.seed)
        self.reporter = Reporter(
            folder if self.is_first else None, run.kimg, trainer.kimg, run.write_errors == "stop"
        )

    def _go_on(self, known: list[Path], wanted: Path) -> None:
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
                self.notes.append(f"{path.name} is kept as {set_aside(path).name}")
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
        self.notes.append(f"code version {checkpoint.code_version()}")
        if trainer.kimg >= config.run.kimg:
            self.notes.append(f"{trainer.kimg:.2f} kimg are done already: --kimg takes it further")
        for note in self.notes:
            self.reporter.say(note)
        if self.is_first:
            self.reporter.guard(self._save_config)
        if self.is_first and trainer.steps == 0:
            self.reporter.guard(self._save_photographs)
            self.reporter.guard(self._save_pictures)

    def go(self, stop: StopSignals) -> int | None:
        """Step until the end, or until asked to stop; then save. Returns the signal, if any."""
        trainer, run = self.trainer, self.config.run
        clock, counted_from = time.time(), trainer.images_seen
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
            if trainer.images_seen - self.tick_started_at >= run.tick * 1000 or finished:
                seconds = (time.time() - clock) / (trainer.images_seen - counted_from) * 1000
                self._end_tick(seconds)
                if self.tick % run.snap == 0 or finished:
                    self._snapshot()
                clock, counted_from = time.time(), trainer.images_seen
        return None

    def _end_tick(self, seconds_per_kimg: float) -> None:
        trainer = self.trainer
        self.tick += 1
        self.tick_started_at = trainer.images_seen
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
            NetworkSubject(trainer.averaged_generator, trainer.discriminator, data.labels),
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
            "code": checkpoint.code_version(),
            "torch": torch.__version__,
        }
        path = self.folder / self._network_name
        checkpoint.save_network(path, trainer.averaged_generator, trainer.discriminator, provenance)

    def _save_config(self) -> None:
        with atomic_write(self.folder / "config.json") as temporary:
            temporary.write_text(self.config.model_dump_json(indent=2) + "\n")

    def _save_photographs(self) -> None:
        pictures.save_image_grid(self.folder / "reals.png", self._photographs())

    def _save_pictures(self) -> None:
        trainer, config = self.trainer, self.config
        z = np.random.RandomState(config.run.seed).randn(PICTURED, config.generator.z_dim)
        intrinsics = trainer.dataset.all_intrinsics
        if config.camera.intrinsics == "labels" and intrinsics is not None:
            intrinsics = intrinsics[torch.arange(PICTURED) % len(intrinsics)]
        else:
            intrinsics = None
        pictures.save_snapshot_pictures(
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
        return torch.stack([dataset[int(i)] for i in spread]).float() / 127.5 - 1


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
