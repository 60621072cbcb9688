"""One training step and everything that changes in it: `Trainer`.

Several processes run the same code, each on its share of the batch; the first one writes files.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib import UserError
from torch_utils import distributed, random_states
from torch_utils.devices import INNER_DTYPES, restore_threads, select_precision
from torch_utils.gradients import GradientAverager
from torch_utils.images import to_float
from torch_utils.training_stats import StatsCollector
from training import geod, losses, old_names, pose_anchor, schedules
from training.augment import Augmentation
from training.config import Config
from training.data.dataset import ImageDataset
from training.data.loader import Batch, training_batches
from training.feedback import Feedback
from training.geod_supervisor import Supervisor
from training.losses import Phase
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.optimizers import adam, first_non_finite, follow, take_step, with_own_rates
from training.step_inputs import (
    DiscriminatorTransform,
    RealBatch,
    StepInputs,
    density_points,
    draw_inputs,
)

Terms = dict[str, Tensor]


class TrainingDiverged(UserError):
    """Losses or gradients were not finite too many steps in a row."""


class Trainer:
    """Networks, optimizers, augmentation, counters and random states of a run.

    All processes start from the same weights; each draws its own latents and photographs.

    Args:
        config: the run's.
        dataset: the photographs.
        device: where this process computes.
        phase_losses: the losses of the four phases.

    Raises:
        UserError: where the source of poses cannot train on these data.
    """

    def __init__(
        self,
        config: Config,
        dataset: ImageDataset,
        device: torch.device,
        phase_losses: losses.PhaseLosses = losses.LOSSES,
    ):
        self.config, self.dataset, self.device, self.losses = config, dataset, device, phase_losses
        torch.manual_seed(config.run.seed)
        generator = Generator(config)
        generator.pose_source.prepare(dataset.all_cam2world, str(config.data.path))
        self.generator = generator.to(device)
        self.discriminator = Discriminator(config).to(device)
        self.supervisor = Supervisor(config, device) if config.geod.active else None
        self.averaged_generator = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.averaged_discriminator = copy.deepcopy(self.discriminator).requires_grad_(False)
        self._averages = (  # the paper averages G; D's estimates of poses swing as well
            (self.averaged_generator, self.generator),
            (self.averaged_discriminator, self.discriminator),
        )
        self.set_precision(select_precision(config.run.precision, device))
        loss, optim, augment = config.loss, config.optim, config.augment
        self.g_optimizer = adam(self.generator, optim.g_lr, optim, loss.density_every)
        self.d_optimizer = adam(self.discriminator, optim.d_lr, optim, loss.r1_every)
        self.augmentation = Augmentation(augment.p if augment.mode == "fixed" else 0.0)
        self.feedback = Feedback(config, self.augmentation, generator.mapping, device)
        self.stats, self.averager = StatsCollector(device), GradientAverager()
        self.steps = 0
        self.bad_steps = 0  # in a row
        torch.manual_seed(self._seed_of_process)
        self._batches: Iterator[Batch] | None = None
        self._fetched: Batch | None = None
        self.stop_waiting: Callable[[], bool] = lambda: False  # asked while photographs do not come
        self._first_non_finite = ""

    @property
    def images_processed(self) -> int:
        """Training images so far, over all processes."""
        return self.steps * self.config.run.batch

    @property
    def kimg(self) -> float:
        """Thousand training images so far."""
        return self.images_processed / 1000

    def set_precision(self, precision: str) -> None:
        """Compute activations in 'fp32', 'fp16' or 'bf16'; weights are float32 in any case."""
        self.precision = precision
        for averaged, current in self._averages:
            averaged.set_inner_dtype(INNER_DTYPES[precision])
            current.set_inner_dtype(INNER_DTYPES[precision])

    def step(self) -> None:
        """One iteration: G, its density term, D, its R1 term, then the moving averages.

        With GeoD the inverse renderer comes first.

        Raises:
            TrainingDiverged: after too many steps in a row whose gradients were not finite.
            UserError: where a photograph cannot be read; nothing has changed then.
        """
        loss = self.config.loss
        self.generator.raw_resolution = schedules.raw_resolution(self.config, self.kimg)
        transform = self._transform()
        self.fetch()  # before anything changes, since reading may fail
        reals = self._fetched_reals()
        updates = []
        if geod.is_trained(self.config.geod, self.images_processed):
            updates.append(self._inverse_renderer(reals))
        updates.append(self._generator_main(transform))
        if loss.density_weight and self.steps % loss.density_every == 0:
            updates.append(self._generator_density())
        updates.append(d_terms := self._discriminator_main(reals, transform))
        if loss.gamma and self.steps % loss.r1_every == 0:
            updates.append(self._discriminator_r1(reals, transform))
        self.steps += 1
        self._count_bad_step(bad=not all(updates))
        self.feedback.observe(d_terms, self.stats)
        self.stats.report("augment/p", self.augmentation.p)
        self._update_averages()

    def _transform(self) -> DiscriminatorTransform:
        sigma = schedules.blur_sigma(self.config, self.kimg)
        return DiscriminatorTransform(sigma, self.feedback.augment)

    def _inverse_renderer(self, reals: list[RealBatch]) -> list[Terms]:
        supervisor = self.supervisor
        assert supervisor is not None  # there is one where it is trained

        def phase(real: RealBatch) -> Phase:
            return supervisor.main(real.images)

        return self._update(supervisor.optimizer, phase, reals)

    def _generator_main(self, transform: DiscriminatorTransform) -> list[Terms]:
        weight = self.feedback.pose_anchor_weight
        view_losses = pose_anchor.view_losses(self.averaged_discriminator, weight, transform)
        if self.supervisor is not None:
            view_losses += self.supervisor.view_losses(self.images_processed, self.steps)

        def phase(z: Tensor) -> Phase:
            networks, inputs = (self.generator, self.discriminator), self._inputs(z)
            return self.losses.generator_main(*networks, inputs, transform, view_losses)

        return self._update(self.g_optimizer, phase, self._latents())

    def _generator_density(self) -> list[Terms]:
        def phase(z: Tensor) -> Phase:
            points = density_points(self.generator, len(z))
            return self.losses.generator_density(self.generator, z, *points)

        every = self.config.loss.density_every
        return self._update(self.g_optimizer, phase, self._latents(), scale=every)

    def _discriminator_main(
        self, reals: list[RealBatch], transform: DiscriminatorTransform
    ) -> list[Terms]:
        def phase(z: Tensor, real: RealBatch) -> Phase:
            return self.losses.discriminator_main(
                self.generator, self.discriminator, self._inputs(z), real, transform
            )

        latents = self._latents()
        self._track_mean_w(torch.cat(latents))
        return self._update(self.d_optimizer, phase, latents, reals)

    def _discriminator_r1(
        self, reals: list[RealBatch], transform: DiscriminatorTransform
    ) -> list[Terms]:
        def phase(real: RealBatch) -> Phase:
            networks = self.generator, self.discriminator
            loss, terms = self.losses.discriminator_r1(*networks, real, transform)
            return Phase(loss * self.feedback.r1_factor, terms)

        return self._update(self.d_optimizer, phase, reals, scale=self.config.loss.r1_every)

    def _update(
        self,
        optimizer: torch.optim.Optimizer,
        phase: Callable[..., Phase],
        *micro_batches: Sequence[Any],
        scale: float = 1,
    ) -> list[Terms]:
        """Step along the mean gradient of a phase over micro-batches and processes.

        Parameters that the phase does not reach are left alone. scale makes up for a phase that is
        not run in every step. Returns the micro-batches' loss terms; none, and nothing has changed,
        when a gradient is not finite.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.zero_grad(set_to_none=True)  # those that a skipped step has left
        terms, count = [], len(micro_batches[0])
        for number, arguments in enumerate(zip(*micro_batches, strict=True), 1):
            result = phase(*arguments)
            loss = result.loss * (scale / count)
            self.averager.backward(loss, parameters, phase.__qualname__, last=number == count)
            terms.append(result.terms)
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not nn.utils.get_total_norm(gradients).isfinite():
            self._first_non_finite = first_non_finite(terms, self._parts())
            return []
        for name, values in (item for part in terms for item in part.items()):
            self.stats.report(name, values)
        take_step(optimizer)
        return terms

    def _count_bad_step(self, bad: bool) -> None:
        self.stats.report("steps_skipped", float(bad))
        self.bad_steps = self.bad_steps + 1 if bad else 0
        if self.bad_steps >= self.config.run.max_bad_steps:
            raise TrainingDiverged(
                f"{self.bad_steps} steps in a row were not finite, last: {self._first_non_finite}; "
                "resume an earlier checkpoint with smaller learning rates or more R1"
            )

    @torch.no_grad()
    def _track_mean_w(self, z: Tensor) -> None:
        w = self.generator.mapping(z).mean(dim=0, keepdim=True)
        self.generator.mapping.update_w_avg(distributed.all_reduce_mean(w))

    def start_averages(self) -> None:
        """Let the moving averages begin at the networks as they are."""
        for averaged, current in self._averages:
            averaged.load_state_dict(current.state_dict())

    def _update_averages(self) -> None:
        decay = schedules.ema_decay(self.config, self.images_processed)
        for averaged, current in self._averages:
            follow(averaged, current, decay)
        self.averaged_generator.raw_resolution = self.generator.raw_resolution

    @property
    def _seed_of_process(self) -> int:
        return self.config.run.seed * 1_000_003 + 1 + distributed.rank()

    @property
    def _per_process(self) -> int:
        return self.config.run.batch // distributed.world_size()

    def _split(self, batch: Tensor) -> list[Tensor]:
        """A process's share of a batch by micro-batches."""
        return list(batch.split(self.config.run.batch_gpu or self._per_process))

    def _latents(self) -> list[Tensor]:
        shape = (self._per_process, self.config.generator.z_dim)
        return self._split(torch.randn(shape, device=self.device))

    def _inputs(self, z: Tensor) -> StepInputs:
        return draw_inputs(self.generator, self.dataset, self.feedback, z)

    def fetch(self) -> None:
        """Read the photographs of the next step, if they are not read yet.

        Raises:
            UserError: where one cannot be read; the trainer's state is as before.
        """
        if self._fetched is None:
            self._fetched = next(self._batches_from_here())

    def _batches_from_here(self) -> Iterator[Batch]:
        if self._batches is None:
            run = self.config.run
            self._batches = training_batches(
                self.dataset,
                self._per_process,
                seed=run.seed,
                start=self.images_processed,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
                workers=self.config.data.workers,
                pin_memory=self.device.type == "cuda",
                stop=lambda: self.stop_waiting(),
            )
        return self._batches

    def _fetched_reals(self) -> list[RealBatch]:
        """This process's share of the fetched photographs, by micro-batches."""
        batch, self._fetched = self._fetched, None
        assert batch is not None
        images = self._split(to_float(batch.images.to(self.device, non_blocking=True)))
        condition = self.generator.pose_source.condition_of_images(batch.indices)
        if condition is None:
            return [RealBatch(part) for part in images]
        return [RealBatch(*parts) for parts in zip(images, self._split(condition), strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs; to be called by all processes, complete on the first."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        batch = self.config.run.batch
        counters = {"steps": self.steps, "batch": batch, "bad_steps": self.bad_steps}
        computation = {"threads": torch.get_num_threads(), "precision": self.precision}
        return parts | counters | {"random": random_states.gather(self.device)} | computation

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Continue where `state_dict` was taken.

        Returns:
            Lines for the log, about what is not exactly as it was.

        Raises:
            UserError: where the state does not fit this configuration.
        """
        state = old_names.current_state(state)
        if state["batch"] != self.config.run.batch:
            raise UserError(f"the run's batch is {state['batch']}: add --batch {state['batch']}")
        for name, part in self._parts().items():
            try:
                part.load_state_dict(with_own_rates(part, state[name]))
            except (RuntimeError, ValueError, KeyError) as error:
                raise UserError(
                    f"the checkpoint's {name} does not fit this configuration "
                    f"({' '.join(str(error).split())[:200]}): resume with the run's own settings"
                ) from error
        self.steps, self.bad_steps = state["steps"], state["bad_steps"]
        self._batches = self._fetched = None  # they were those of other steps
        seed = self._seed_of_process + distributed.world_size() * self.steps
        return [
            *self._restore_precision(state.get("precision", "fp32")),
            *restore_threads(state["threads"], self.device),
            *random_states.restore(state["random"], self.device, seed),
        ]

    def _restore_precision(self, before: str) -> list[str]:
        """Where the run does not ask for another one."""
        now = self.precision
        if self.device.type != "cpu" or self.config.run.precision != "auto" or now == before:
            return []
        self.set_precision(before)
        return [f"{before} as before, not {now}, for the same results"]

    def _parts(self) -> dict[str, Any]:
        parts = self.feedback.parts() | {
            "G": self.generator,
            "D": self.discriminator,
            "G_ema": self.averaged_generator,
            "D_ema": self.averaged_discriminator,
            "g_optimizer": self.g_optimizer,
            "d_optimizer": self.d_optimizer,
            "augmentation": self.augmentation,
            "stats": self.stats,
        }
        if (supervisor := self.supervisor) is not None:
            parts |= {"IR": supervisor.network, "ir_optimizer": supervisor.optimizer}
        return parts
