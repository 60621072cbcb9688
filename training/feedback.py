"""What training adjusts to D's outputs: augmentation, R1's weight, the spread of yaw, psi."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torch_utils import distributed
from torch_utils.training_stats import StatsCollector
from training.augment import AdaController, Augment, Augmentation
from training.config import Config
from training.networks.mapping import GeneratorMapping, PoseMapping

R1_RATE = 0.008  # per step, of the factor's logarithm at most
R1_LARGEST = 100.0
PSI_RATE = 0.001  # per step, at most
PSI_MARGIN = 0.1  # of the explained share; farther from `clarity` psi moves at full rate
PSI_RELIEF = 2.0  # margins by which less clarity is asked at most
PSI_PATIENCE = 2000  # steps, after which psi grows in any case,
PSI_SLOWEST = 20_000  # to 1 within so many
PSI_SETTLING = PSI_RATE / 4  # per step, by which `settled_psi` follows at most
PSI_UNSETTLED = 0.25  # of psi, not settled: objects are held in full
DECAY = 0.99  # per step, of moments: they are those of hundreds of images

Terms = dict[str, Tensor]


class AdaptiveR1(nn.Module):
    """A factor of R1's weight that grows while D's scores are too far apart.

    Not in the paper. The right weight depends on the data, over two orders of magnitude. Its
    purpose does not: where D separates photographs from generated images too well, its gradients
    are of little use to G. The distance of its mean scores measures that without labels.

    Args:
        gap: mean score of photographs less that of generated images, above which the factor grows,
            and below which it falls back to 1, where it starts.
    """

    log_factor: Tensor

    def __init__(self, gap: float):
        super().__init__()
        self.gap = gap
        self.register_buffer("log_factor", torch.zeros([]))

    @property
    def factor(self) -> Tensor:
        """By which the weight is multiplied, a scalar."""
        return self.log_factor.exp()

    def observe(self, photographs: Tensor, generated: Tensor) -> None:
        """Adjust the factor to the scores of one step, of any shape; all processes together."""
        found = distributed.all_reduce_mean(photographs.mean() - generated.mean())
        change = R1_RATE * (found - self.gap).clamp(-1, 1)
        self.log_factor.add_(change).clamp_(0, math.log(R1_LARGEST))


class SpreadBalance(nn.Module):
    """Widens G's yaw while D's estimates of it spread more on photographs than on generated images.

    Not in the paper. The same D estimates both, so whatever narrows its estimates narrows both, and
    the difference that remains is that of the true spreads, which need not be known. Only where D
    knows photographs by other things than poses does it estimate theirs worse, and so closer
    together. Hence nothing is narrowed: losses do that by themselves. Pitch is left alone, whose
    estimates spread more on photographs for other reasons as well (log, entry 64).

    The pose head is scaled directly. No loss could do it: Adam moves its last layer, of learning
    rate multiplier 0.01 as published, by less than 1 % in a thousand images, whatever its weight.

    Args:
        rate: by which the logarithm of the spread of G's yaw follows the gap, per step.
        scale: `PoseMapping.scale_poses` of G.
    """

    LARGEST = 1.0  # of the gap, while D's estimates still mean little
    moments: Tensor  # of (photographs, generated): (mean, mean square) of (h, v)

    def __init__(self, rate: float, scale: Callable[[Tensor, Tensor], None]):
        super().__init__()
        self.rate, self._scale = rate, scale
        self.register_buffer("moments", torch.zeros(2, 2, 2))

    def observe(self, photographs: Tensor, generated: Tensor) -> None:
        """Take D's estimates into account, each [N, 2]; all processes together."""
        poses = torch.stack([photographs, generated])
        new = torch.stack([poses.mean(dim=1), poses.square().mean(dim=1)], dim=1)
        _follow(self.moments, distributed.all_reduce_mean(new))

    def gap(self) -> Tensor:
        """Logarithm of the ratio of standard deviations, [2] for (h, v); positive: G's are narrow.

        Zero before anything was observed.
        """
        mean, square = self.moments.unbind(1)
        variance = (square - mean.square()).clamp(min=0) + 1e-4
        return (variance[0].log() - variance[1].log()).div(2).clamp(-self.LARGEST, self.LARGEST)

    def adjust(self, trust: Tensor | float) -> None:
        """Widen G's yaw round its mean; trust: share of the rate, 0 to 1."""
        change = self.rate * trust * self.gap()[0].clamp(min=0)
        factors = torch.stack([change.exp(), torch.ones_like(change)])
        self._scale(factors, self.moments[1, 0])


class Diversity(nn.Module):
    """psi of training objects: grows from 0, the mean object, while D estimates cameras well.

    Not in the paper. Unposed images do not distinguish an object that turns from a camera that
    does, and turned objects are learned first. While all are alike, only cameras make images differ
    in pose, and D learns to estimate them. Should objects turn later on, D's estimates of known
    cameras become worse, and psi falls again; but not for ever, since an object that looks alike
    from all sides would never become several.

    Where R1's weight has to grow meanwhile, D tells the mean object itself from photographs. G then
    changes it faster than D can learn its cameras, and waiting makes them worse: less is asked.

    Args:
        clarity: share of the variance of generated poses that D's estimates have to explain for psi
            to grow; below, it falls.
    """

    psi: Tensor
    settled_psi: Tensor  # follows psi upward, but slowly
    steps: Tensor
    moments: Tensor  # of generated poses (h, v): mean, mean square; then mean squared error of D

    def __init__(self, clarity: float):
        super().__init__()
        self.clarity = clarity
        self.register_buffer("psi", torch.zeros([]))
        self.register_buffer("settled_psi", torch.zeros([]))
        self.register_buffer("steps", torch.zeros([]))
        self.register_buffer("moments", torch.zeros(3, 2))

    def explained(self) -> Tensor:
        """Share of the variance of generated poses that D's estimates explain, at most 1."""
        mean, square, error = self.moments
        variance = (square - mean.square()).clamp(min=1e-6)
        return 1 - (error / variance).mean()

    def _margins_above(self, share: Tensor | float) -> Tensor:
        """By how many margins D's estimates explain more than a share."""
        return (self.explained() - share) / PSI_MARGIN

    def is_about_to_grow(self) -> bool:
        """Whether D's estimates explain almost as much as psi needs to grow; waits for a GPU."""
        return bool(self.moments.any()) and float(self.explained()) > self.clarity - PSI_MARGIN

    def trust(self) -> Tensor:
        """How far D's estimates of photographs are those of their poses, from 0 to 1.

        While objects are alike, or cameras of generated images not known, they differ for other
        reasons too.
        """
        return self.psi * self._margins_above(self.clarity).clamp(0, 1)

    def hold(self) -> Tensor:
        """How far objects are to be kept from turning, from 0 to 1.

        While they begin to differ and for some time after, at most as far as D is trusted.
        """
        unsettled = (self.psi - self.settled_psi) / PSI_UNSETTLED
        return self.trust() * unsettled.clamp(0, 1)

    def asked(self, r1_log_factor: Tensor) -> Tensor:
        """Share above which psi grows: `clarity`, less a margin for each e in R1's factor."""
        return self.clarity - PSI_MARGIN * r1_log_factor.clamp(max=PSI_RELIEF)

    def observe(self, poses: Tensor, estimates: Tensor, r1_log_factor: Tensor) -> None:
        """Adjust psi to the generated poses [N, 2] of a step; all processes together.

        r1_log_factor: scalar, see `AdaptiveR1`; 0 where R1's weight is constant.
        """
        error = (estimates - poses).square()
        new = torch.stack([poses.mean(dim=0), poses.square().mean(dim=0), error.mean(dim=0)])
        _follow(self.moments, distributed.all_reduce_mean(new))
        change = PSI_RATE * self._margins_above(self.asked(r1_log_factor)).clamp(-1, 1)
        self.steps.add_(1)
        least = ((self.steps - PSI_PATIENCE) / PSI_SLOWEST).clamp(min=0, max=1)
        self.psi.add_(change).clamp_(max=1).clamp_(min=least)
        self.settled_psi.add_((self.psi - self.settled_psi).clamp(max=PSI_SETTLING))


class Feedback:
    """The controllers of a run; those without a setting are None.

    Args:
        config: the run's.
        augmentation: whose p the first one adjusts.
        mapping: of the generator; the spread of learned poses is adjusted.
        device: where D's outputs are.
    """

    def __init__(
        self,
        config: Config,
        augmentation: Augmentation,
        mapping: GeneratorMapping,
        device: torch.device,
    ):
        loss, augment = config.loss, config.augment
        self._settings, self._anchor_weight = augment, loss.pose_anchor_weight
        self.batch, self.adaptive = config.run.batch, augment.mode == "ada"
        self.ada = AdaController(
            augmentation, augment.kimg, target=augment.target, interval=augment.every
        )
        self.r1 = AdaptiveR1(loss.gamma_gap).to(device) if loss.gamma_gap else None
        self.spread = None
        if config.camera.spread_rate and isinstance(mapping, PoseMapping):
            rate = config.camera.spread_rate * config.run.batch / 1000
            self.spread = SpreadBalance(rate, mapping.scale_poses).to(device)
        clarity = config.generator.diversity_clarity
        self.diversity = None if clarity is None else Diversity(clarity).to(device)

    @property
    def r1_factor(self) -> Tensor | float:
        """By which R1's weight is multiplied."""
        return 1.0 if self.r1 is None else self.r1.factor

    @property
    def pose_anchor_weight(self) -> Tensor | float:
        """Of what `pose_anchor` holds."""
        if self.diversity is None or not self._anchor_weight:
            return 0.0
        return self._anchor_weight * self.diversity.hold()

    @property
    def augment(self) -> Augment | None:
        """The augmentation of D's images as it is now; None: there is none.

        D tells objects that are all alike from photographs by their colors, however well their
        shapes and cameras are learned. Random colors of both take that away while it lasts.
        """
        if self.diversity is not None and self._settings.color_p:
            color_p = self._settings.color_p * (1 - self.diversity.psi)
            return functools.partial(self.ada.augmentation, color_p=color_p)
        return None if self._settings.mode == "noaug" else self.ada.augmentation

    @property
    def truncation(self) -> Tensor | float:
        """Training objects' psi; a tensor where it changes, so that no GPU is waited for."""
        return 1.0 if self.diversity is None else self.diversity.psi.clone()

    def observe(self, d_terms: list[Terms], stats: StatsCollector) -> None:
        """Adjust all to the terms of D's main phase, of each micro-batch; report what changed."""
        if not d_terms:  # the step was skipped
            return
        terms = {name: torch.cat([part[name].flatten() for part in d_terms]) for name in d_terms[0]}
        if self.adaptive:
            self.ada.step(distributed.all_reduce_sum(terms["D/sign_real"].sum()), self.batch)
        if self.r1 is not None:
            self.r1.observe(terms["D/score_real"], terms["D/score_own_view"])
            stats.report("D/r1_factor", self.r1.factor)
        if self.diversity is None and self.spread is None:
            return
        photographs, estimates, poses = (
            torch.stack([terms[f"pose/{kind}_{angle}"] for angle in "hv"], dim=1)
            for kind in ("estimated", "estimated_generated", "generated")
        )
        if self.diversity is not None:
            log_factor = poses.new_zeros(()) if self.r1 is None else self.r1.log_factor
            self.diversity.observe(poses, estimates, log_factor)
            stats.report("G/psi", self.diversity.psi)
            stats.report("D/pose_explained", self.diversity.explained())
        if self.spread is not None:
            self.spread.observe(photographs, estimates)
            self.spread.adjust(1.0 if self.diversity is None else self.diversity.trust())
            for angle, gap in zip("hv", self.spread.gap(), strict=True):
                stats.report(f"pose/spread_gap_{angle}", gap)

    def forget_poses(self) -> None:
        """Observe poses afresh: they have changed their meaning."""
        for part in (self.diversity, self.spread):
            if part is not None:
                part.moments.zero_()

    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps, by name."""
        parts: dict[str, Any] = {"ada": self.ada}
        if self.r1 is not None:
            parts["adaptive_r1"] = self.r1
        if self.spread is not None:
            parts["spread_balance"] = self.spread
        if self.diversity is not None:
            parts["diversity"] = self.diversity
        return parts


def _follow(moments: Tensor, new: Tensor) -> None:
    """Move running moments toward new ones; the first are taken as they are. Waits for no GPU."""
    moments.copy_(torch.where(moments.any(), new.lerp(moments, DECAY), new))
