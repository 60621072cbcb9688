"""The published schedule of a training step, for comparison: everything as often as it is named.

The backbone runs three times per main phase on the same latents (own view, mirrored view, pose),
and the discriminator twice per image (pose, then score). Same gradients as `training.losses`.
"""

import torch
import torch.nn.functional as F

from training import camera, losses
from training.discriminator import Discriminator, Judgement
from training.generator import Generator, View
from training.losses import Draws, Phase, Spectacles


def render_once(
    generator: Generator, draws: Draws, mirror: str | None
) -> tuple[torch.Tensor, View]:
    """One pass through everything, for one view: pose and view."""
    latent = generator.latent(draws.z)
    cam2world = generator.cam2world(latent.pose)
    if mirror is not None:
        cam2world = camera.mirror_cam2world(cam2world, mirror)
    planes = generator.planes(latent.ws, noise="random")
    view = generator.render(
        planes, latent.ws[:, -1], cam2world[:, None], draws.intrinsics, stochastic=True
    )
    return latent.pose, view.select(0)


def judge_twice(discriminator: Discriminator, view: View, seen: Spectacles) -> Judgement:
    """One pass for the pose, one for the score given that pose."""
    pose = losses.judge(discriminator, view.image, view.raw, seen).pose
    score = discriminator(losses.blur(view.image, seen.sigma), view.raw, pose.detach()).score
    return Judgement(score, pose)


def generator_main(
    generator: Generator, discriminator: Discriminator, draws: Draws, seen: Spectacles
) -> Phase:
    opinions = []
    for mirror in (None, draws.mirror):
        _, view = render_once(generator, draws, mirror)
        opinions.append(judge_twice(discriminator, view, seen))
    _, view = render_once(generator, draws, None)
    pose = losses.judge(discriminator, view.image, view.raw, seen).pose.detach()
    w = generator.latent(draws.z).w.detach()
    pull = F.mse_loss(generator.pose(w), pose)
    loss = sum(F.softplus(-opinion.score).mean() for opinion in opinions)
    return Phase(loss + generator.config.loss.pull_weight * pull, {})


def discriminator_main(
    generator: Generator,
    discriminator: Discriminator,
    draws: Draws,
    real: torch.Tensor,
    seen: Spectacles,
    _real_label: None = None,
) -> Phase:
    with torch.no_grad():
        views = [render_once(generator, draws, mirror) for mirror in (None, draws.mirror, None)]
    (_, own), (_, mirrored), (pose, posed) = views
    loss = sum(
        F.softplus(judge_twice(discriminator, view, seen).score).mean() for view in (own, mirrored)
    )
    seen_pose = losses.judge(discriminator, posed.image, posed.raw, seen).pose
    loss = loss + generator.config.loss.pose_weight * F.mse_loss(seen_pose, pose)
    raw = losses.blur(losses.resize(real, generator.raw_resolution), seen.sigma)
    photographs = View(real, raw, raw, raw)  # judged by image and raw alone
    on_real = judge_twice(discriminator, photographs, seen)
    return Phase(loss + F.softplus(-on_real.score).mean(), {})
