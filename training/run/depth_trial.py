"""Whether the depth of a run's world is reversed: both are tried, and the better one stays.

For a while training goes on as it is; then once more from where it was, with reversed depth. What
tells the two apart needs no labels: where depth is right, D estimates the cameras of generated
images better, and objects become different sooner. Not in the paper.
"""

import math
from collections.abc import Callable
from typing import Any

from torch_utils import distributed
from training.config import Config
from training.feedback import Diversity
from training.networks.depth_reversal import reverse_depth
from training.run.checkpoint import copy_in_main_memory
from training.run.run_folder import images_in
from training.step import Trainer, TrainingDiverged

MARGIN = 0.1  # by which reversed depth has to be better: in a fog it was by 0.08, and yet wrong


def is_tried(config: Config) -> bool:
    """Whether a run tries both depths: where objects start alike, and poses can be reversed."""
    camera, generator = config.camera, config.generator
    return (
        generator.depth_trial_kimg is not None
        and generator.diversity_clarity is not None
        and camera.poses == "learned"
        and camera.range_h is None
        and camera.range_v is None
        and not any(camera.pivot)
        and not config.geod.active
    )


class DepthTrial:
    """The trial of a run: there is one at most, early.

    Args:
        trainer: of the run.
        say: writes a line to the log.
    """

    def __init__(self, trainer: Trainer, say: Callable[[str], None]):
        self._trainer, self._say = trainer, say
        self._before: dict[str, Any] | None = None  # the state of training where the trial began
        self._is_over = not is_tried(trainer.config)
        batch, limits = trainer.config.run.batch, trainer.config.generator.depth_trial_kimg
        self._latest, self._length = (
            images_in(kimg) // batch for kimg in limits or (0, 0)
        )  # steps

    def look(self, go_on: Callable[[], bool]) -> bool:
        """Begin, or decide, where it is time; to be called before each step, by all processes.

        Args:
            go_on: prepares a step; False where training is to stop. Nothing is decided then; it
                will be when training resumes.

        Returns:
            Whether that took steps.
        """
        if self._is_over:
            return False
        if self._before is None:
            if self._is_time():
                self._before = self._state()
            return False
        if self._trainer.steps < self._before["steps"] + self._length:
            return False
        self._decide(self._before, go_on)
        return True

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {"before": self._before, "is_over": self._is_over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._before, self._is_over = state["before"], state["is_over"]

    def _is_time(self) -> bool:
        return self._trainer.steps >= self._latest or self._diversity.is_about_to_grow()

    def _decide(self, before: dict[str, Any], go_on: Callable[[], bool]) -> None:
        trainer, until = self._trainer, self._trainer.kimg
        as_it_is, found = self._state(), self._success()
        # A copy, since optimizers step on in the tensors that they load.
        trainer.load_state_dict(copy_in_main_memory(before))
        self._say(f"from {trainer.kimg:g} to {until:g} kimg once more, with reversed depth")
        self._reverse()
        try:
            while trainer.steps < as_it_is["steps"]:
                if not go_on():
                    trainer.load_state_dict(as_it_is)
                    return
                trainer.step()
            found_reversed = self._success()
        except TrainingDiverged:
            found_reversed = -math.inf, 0.0
        self._before, self._is_over = None, True
        is_better = sum(found_reversed) > sum(found) + MARGIN
        if not is_better:
            trainer.load_state_dict(as_it_is)
        self._say(
            "share of poses' variance that D explains, and psi: {:.2f}, {:.2f}; with reversed "
            "depth {:.2f}, {:.2f}; ".format(*found, *found_reversed)
            + ("depth is reversed from here on" if is_better else "depth stays as it was")
        )

    def _reverse(self) -> None:
        trainer = self._trainer
        reverse_depth(trainer.generator, trainer.discriminator)
        reverse_depth(trainer.averaged_generator, trainer.averaged_discriminator)
        trainer.feedback.forget_poses()

    def _success(self) -> tuple[float, float]:
        """How well D estimates poses, and how different objects have become, which costs some."""
        return float(self._diversity.explained()), float(self._diversity.psi)

    @property
    def _diversity(self) -> Diversity:
        diversity = self._trainer.feedback.diversity
        assert diversity is not None
        return diversity

    def _state(self) -> dict[str, Any]:
        """The trainer's, of all processes, in each of them."""
        state = self._trainer.state_dict()
        return distributed.from_first(lambda: copy_in_main_memory(state))
