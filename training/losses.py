"""The losses of one training step: networks and draws in, tensors out; nothing is modified.

Four phases, as PoF3D section 3.4 and StyleGAN2's lazy regularisation order them. Each latent is
seen from its own camera and from a mirrored one; without the second view, geometry collapses to a
relief. One pass through the backbone serves both views, one pass through D's trunk yields pose and
score.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training import cameras as camera
from training.networks.discriminator import Discriminator, Judgement, resize
from training.networks.generator import Generator, Latent, View

# Changes what D sees: (image, raw or None) -> (image, raw or None), differentiable.
Augment = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


class Draws(NamedTuple):
    """What chance decides in one micro-batch of a main phase.

    z: [B, z_dim]. intrinsics: [B, 3, 3] or [3, 3]. mirror: a kind of `camera.mirror_cam2world`, or
    None for a single view. mixing: a second z and the layer from which it takes over, or None.
    pose: [B, 2], given to the generator; None: it chooses its own. swapped: objects are seen from
    the poses their neighbours in the batch chose. pose_z: [N, z_dim], more latents, whose poses
    alone are wanted; None where nothing spreads them.
    """

    z: Tensor
    intrinsics: Tensor
    mirror: str | None
    mixing: tuple[Tensor, int] | None = None
    pose: Tensor | None = None
    swapped: bool = False
    pose_z: Tensor | None = None

    def assign(self, pose: Tensor) -> Tensor:
        """Which object is seen from which of the poses [B, 2] that they chose."""
        return pose.roll(1, dims=0) if self.swapped else pose


class Spectacles(NamedTuple):
    """What images pass on their way to D: blur of `sigma` pixels, then augmentation, if any."""

    sigma: float = 0
    augment: Augment | None = None


class Phase(NamedTuple):
    """loss: scalar to be minimised. terms: values for the log, detached, of any shape."""

    loss: Tensor
    terms: dict[str, Tensor]


def blur(image: Tensor, sigma: float) -> Tensor:
    """Filter [B, C, H, W] with exp2(-(x / sigma)^2), radius floor(3 sigma) pixels, zero padding."""
    radius = int(sigma * 3)
    if radius == 0:
        return image
    channels = image.shape[1]
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
    taps = torch.exp2(-((x / sigma) ** 2))
    taps = (taps / taps.sum()).to(image.dtype).expand(channels, 1, 1, -1)
    image = F.conv2d(image, taps, padding=(0, radius), groups=channels)
    return F.conv2d(image, taps.mT, padding=(radius, 0), groups=channels)


def judge(
    discriminator: Discriminator,
    image: Tensor,
    raw: Tensor,
    seen: Spectacles,
    label: Tensor | None = None,
) -> Judgement:
    """D's opinion of images [B, 3, R, R] and, with dual discrimination, raw images [B, 3, r, r].

    label: [B, 2], known poses to judge them by (EG3D); None: D judges by the poses it sees.
    """
    image, raw = blur(image, seen.sigma), raw if discriminator.dual else None
    if seen.augment is not None:
        image, raw = seen.augment(image, raw)
    return discriminator(image, raw, label)


def generate(generator: Generator, draws: Draws) -> tuple[Latent, list[View]]:
    """Render each latent from its own camera and, where one is drawn, from the mirrored one."""
    latent = generator.latent(draws.z)
    pose = draws.assign(latent.pose) if draws.pose is None else draws.pose
    latent = latent._replace(pose=pose)
    ws = latent.ws
    if draws.mixing is not None:
        other, start = draws.mixing
        ws = torch.cat([ws[:, :start], generator.latent(other).ws[:, start:]], dim=1)
    planes = generator.planes(ws, noise="random")
    cameras = [generator.cam2world(latent.pose)]
    if draws.mirror is not None:
        cameras.append(camera.mirror_cam2world(cameras[0], draws.mirror))
    views = generator.render(
        planes, ws[:, -1], torch.stack(cameras, dim=1), draws.intrinsics, stochastic=True
    )
    return latent, [views.select(i) for i in range(len(cameras))]


def generator_main(
    generator: Generator, discriminator: Discriminator, draws: Draws, seen: Spectacles
) -> Phase:
    """Adversarial loss on every view, and the pull of the pose toward what D sees in the image.

    The pull reaches the pose head alone: neither w nor the image moves for its sake.
    """
    latent, views = generate(generator, draws)
    label = _label(generator, latent)
    opinions = [judge(discriminator, view.image, view.raw, seen, label) for view in views]
    losses = [F.softplus(-opinion.score) for opinion in opinions]
    loss, terms = _sum_of_means(losses), _named("G/loss", losses)
    if draws.pose is None:
        chosen = draws.assign(generator.pose(latent.w.detach()))
        pull = F.mse_loss(chosen, opinions[0].pose.detach())
        loss = loss + generator.config.loss.pull_weight * pull
        terms["G/pose_pull"] = pull
    if draws.pose_z is not None:
        entropy = pose_entropy(generator.pose(generator.mapping(draws.pose_z).detach()))
        loss = loss - generator.config.loss.spread_weight * entropy
        terms["G/pose_entropy"] = entropy
    terms |= {"G/relief": relief(views[0])} | _angles("pose/generated", latent.pose)
    return Phase(loss, _detached(terms))


def generator_density(generator: Generator, z: Tensor, points: Tensor, nearby: Tensor) -> Phase:
    """Density should not jump between neighbouring points (EG3D, supplement section 1).

    z: [B, z_dim]; points, nearby: [B, N, 3] in world units. Nothing is rendered.
    """
    planes = generator.planes(generator.latent(z).ws, noise="random")
    sigma = generator.field(planes, torch.cat([points, nearby], dim=1)).sigma
    jump = F.l1_loss(*sigma.chunk(2, dim=1))
    return Phase(generator.config.loss.density_weight * jump, _detached({"G/density": jump}))


def discriminator_main(
    generator: Generator,
    discriminator: Discriminator,
    draws: Draws,
    real: Tensor,
    seen: Spectacles,
    real_label: Tensor | None = None,
) -> Phase:
    """Views of fakes score low, reals high, and the poses of the unmirrored fakes are learned.

    real: [B, 3, R, R] in [-1, 1]; real_label: see `judge`. The batches are judged one after the
    other, since the minibatch standard deviation must not mix them.
    """
    with torch.no_grad():
        latent, views = generate(generator, draws)
    label = _label(generator, latent)
    opinions = [judge(discriminator, view.image, view.raw, seen, label) for view in views]
    raw = blur(resize(real, generator.raw_resolution), seen.sigma)
    on_real = judge(discriminator, real, raw, seen, real_label)
    losses = [F.softplus(opinion.score) for opinion in opinions]
    losses_real = F.softplus(-on_real.score)
    pose_error = F.mse_loss(opinions[0].pose, latent.pose)
    weight = generator.config.loss.pose_weight
    loss = _sum_of_means([*losses, losses_real]) + weight * pose_error
    terms = _named("D/loss", losses) | _named("D/score", [opinion.score for opinion in opinions])
    terms |= {
        "D/loss_real": losses_real,
        "D/pose_error": pose_error,
        "D/score_real": on_real.score,
        "D/sign_real": on_real.score.sign(),
    }
    return Phase(loss, _detached(terms | _angles("pose/seen_in_photographs", on_real.pose)))


def discriminator_r1(
    generator: Generator,
    discriminator: Discriminator,
    real: Tensor,
    seen: Spectacles,
    real_label: Tensor | None = None,
) -> Phase:
    """R1: gamma/2 times the squared gradient of the score at photographs (Mescheder et al. 2018).

    The gradient is taken with respect to the images before blur and augmentation, as in Karras et
    al. 2020b; with dual discrimination the raw image counts as an input of its own.
    """
    raw = resize(real, generator.raw_resolution)
    inputs = [x.detach().requires_grad_() for x in ([real, raw] if discriminator.dual else [real])]
    image, raw = inputs[0], inputs[-1]
    score = judge(discriminator, image, blur(raw, seen.sigma), seen, real_label).score
    gradients = torch.autograd.grad(score.sum(), inputs, create_graph=True)
    penalty = sum(gradient.square().sum(dim=(1, 2, 3)) for gradient in gradients)
    loss = generator.config.loss.gamma / 2 * penalty.mean()
    return Phase(loss, _detached({"D/r1_penalty": penalty}))


def density_draws(generator: Generator, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random points in [-1, 1]^3 and a neighbour of each, [B, N, 3]."""
    loss = generator.config.loss
    points = torch.rand(batch, loss.density_points, 3, device=device) * 2 - 1
    return points, points + torch.randn_like(points) * loss.density_step


def pose_entropy(pose: Tensor) -> Tensor:
    """Differential entropy, in nats, of a Gaussian with the covariance of poses [N, 2], N > 2.

    Not in the paper. Objects may turn together with their cameras, in part or in whole, and the
    pictures stay the same; then cameras that move less are as good to D, and geometry makes up for
    them. Cameras that move too much are not: the two views of an object would be more different
    than the data is. So of all that D accepts, the widest poses are the right ones.
    """
    return torch.logdet(torch.cov(pose.T)) / 2 + math.log(2 * math.pi * math.e)


def relief(view: View) -> Tensor:
    """Spread of depth over what is opaque, [B], in world units; zero for a flat card."""
    weight = view.opacity / view.opacity.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-8)
    mean = (weight * view.depth).sum(dim=(1, 2, 3), keepdim=True)
    return (weight * (view.depth - mean).square()).sum(dim=(1, 2, 3)).sqrt()


def _label(generator: Generator, latent: Latent) -> Tensor | None:
    """Where photographs come with poses, D judges images by theirs."""
    return latent.pose if generator.config.camera.poses == "dataset" else None


def _sum_of_means(losses: list[Tensor]) -> Tensor:
    return torch.stack([loss.mean() for loss in losses]).sum()


def _named(prefix: str, values: list[Tensor]) -> dict[str, Tensor]:
    return dict(zip((f"{prefix}_own_view", f"{prefix}_mirrored"), values, strict=False))


def _angles(prefix: str, pose: Tensor) -> dict[str, Tensor]:
    return {f"{prefix}_h": pose[:, 0], f"{prefix}_v": pose[:, 1]}


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in terms.items()}
