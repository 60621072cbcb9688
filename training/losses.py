"""The losses of one training step: networks and inputs in, tensors out; nothing is modified.

Four phases, as PoF3D (Shi et al. 2023, section 3.4) and StyleGAN2's lazy regularization order them.
Each object is rendered from its own camera and from a mirrored one; without the second view,
geometry becomes flat. One pass through the backbone serves both views, one pass through
D's trunk yields pose and score.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.images import blur, resize
from training import cameras
from training.networks.discriminator import Discriminator, DiscriminatorOutput
from training.networks.generator import Generator, View
from training.pose_sources import Poses
from training.step_inputs import DiscriminatorTransform, RealBatch, StepInputs


class Phase(NamedTuple):
    """loss: scalar to be minimized. terms: values for the log, detached, of any shape."""

    loss: Tensor
    terms: dict[str, Tensor]


# (own views [B, ...], their poses [B, 2], intrinsics) -> what else G is to minimize.
ViewLoss = Callable[[View, Tensor, Tensor], Phase]


class DiscriminatorInput(NamedTuple):
    """One batch for D: image [B, 3, R, R], raw [B, 3, r, r], and condition [B, 2]."""

    image: Tensor
    raw: Tensor
    condition: Tensor | None


class Generated(NamedTuple):
    """Objects of a micro-batch. w: [B, w_dim]. views: the own one and, if any, the mirrored one."""

    w: Tensor
    poses: Poses
    views: list[View]


def discriminate(
    discriminator: Discriminator,
    image: Tensor,
    raw: Tensor,
    transform: DiscriminatorTransform,
    condition: Tensor | None = None,
    *,
    batches: int = 1,
) -> DiscriminatorOutput:
    """D's output on transformed images.

    Args:
        discriminator: the network.
        image: [B, 3, R, R].
        raw: [B, 3, r, r], used with dual discrimination only.
        transform: applied to both.
        condition: [B, 2], known poses (EG3D); None: D's own estimate.
        batches: see `Discriminator.forward`.
    """
    image, raw_or_none = blur(image, transform.sigma), raw if discriminator.dual else None
    if transform.augment is not None:
        image, raw_or_none = transform.augment(image, raw_or_none)
    return discriminator(image, raw_or_none, condition, batches=batches)


def generate(generator: Generator, inputs: StepInputs) -> Generated:
    """Render each object from its own camera and, unless `mirror` is None, a mirrored one."""
    # Backgrounds differ from the first: what is behind an object must not tell its pose.
    psi, cutoff = inputs.truncation, generator.num_object_ws
    latent = generator.latent(inputs.z, truncation=psi, cutoff=cutoff)
    poses = generator.pose_source.sample(generator, inputs.z, latent.w)
    ws = latent.ws
    if inputs.mixing is not None:
        other, start = inputs.mixing
        mixed = generator.latent(other, truncation=psi, cutoff=cutoff).ws
        ws = torch.cat([ws[:, :start], mixed[:, start:]], dim=1)
    planes = generator.planes(ws, noise="random")
    cam2world = [generator.cam2world(poses.pose)]
    if inputs.mirror is not None:
        cam2world.append(cameras.mirror_cam2world(cam2world[0], inputs.mirror))
    views = generator.render(
        planes,
        ws,
        torch.stack(cam2world, dim=1),
        inputs.intrinsics,
        stochastic=inputs.stochastic,
    )
    return Generated(latent.w, poses, [views.select(i) for i in range(len(cam2world))])


def generator_main(
    generator: Generator,
    discriminator: Discriminator,
    inputs: StepInputs,
    transform: DiscriminatorTransform,
    view_losses: Sequence[ViewLoss] = (),
) -> Phase:
    """Adversarial loss on every view (PoF3D, eq. 6), and the terms of the pose source (eq. 7).

    view_losses: additional ones of the own, unmirrored views.
    """
    w, poses, views = generate(generator, inputs)
    batches = [DiscriminatorInput(view.image, view.raw, poses.condition) for view in views]
    outputs = _discriminate_all(discriminator, batches, transform)
    losses = [F.softplus(-output.score) for output in outputs]
    loss, terms = _sum_of_means(losses), _named("G/loss", losses)
    estimate = outputs[0].pose
    for term in generator.pose_source.losses(generator, w, poses, estimate):
        loss = loss + term.weight * term.value
        terms[f"G/{term.name}"] = term.value
    for view_loss in view_losses:
        additional = view_loss(views[0], poses.pose, inputs.intrinsics)
        loss, terms = loss + additional.loss, terms | additional.terms
    terms |= {"G/depth_spread": depth_spread(views[0])} | _angles("pose/generated", poses.pose)
    return Phase(loss, _detached(terms))


def generator_density(generator: Generator, z: Tensor, points: Tensor, nearby: Tensor) -> Phase:
    """Penalty on density that differs between neighboring points (EG3D, supplement section 1).

    Args:
        generator: the generator; nothing is rendered.
        z: [B, z_dim].
        points: [B, N, 3] in world units.
        nearby: [B, N, 3], a neighbor of each point.
    """
    planes = generator.planes(generator.latent(z).ws, noise="random")
    sigma, sigma_nearby = generator.field(planes, torch.cat([points, nearby], 1)).sigma.chunk(2, 1)
    jump = F.l1_loss(sigma, sigma_nearby)
    return Phase(generator.config.loss.density_weight * jump, _detached({"G/density": jump}))


def discriminator_main(
    generator: Generator,
    discriminator: Discriminator,
    inputs: StepInputs,
    real: RealBatch,
    transform: DiscriminatorTransform,
) -> Phase:
    """Low scores for generated views, high ones for photographs, and D's pose error on the former.

    PoF3D, eqs. 4 and 5. Only unmirrored views have a known pose.
    """
    with torch.no_grad():
        _, poses, views = generate(generator, inputs)
    raw = blur(resize(real.images, generator.raw_resolution), transform.sigma)
    photographs = DiscriminatorInput(real.images, raw, real.condition)
    generated = [DiscriminatorInput(view.image, view.raw, poses.condition) for view in views]
    *outputs, output_real = _discriminate_all(discriminator, [*generated, photographs], transform)
    losses = [F.softplus(output.score) for output in outputs]
    losses_real = F.softplus(-output_real.score)
    pose_error = F.mse_loss(outputs[0].pose, poses.pose)
    weight = generator.config.loss.pose_weight
    loss = _sum_of_means([*losses, losses_real]) + weight * pose_error
    terms = _named("D/loss", losses) | _named("D/score", [output.score for output in outputs])
    terms |= {
        "D/loss_real": losses_real,
        "D/pose_error": pose_error,
        "D/score_real": output_real.score,
        "D/sign_real": output_real.score.sign(),
    }
    terms |= _angles("pose/estimated", output_real.pose)
    terms |= _angles("pose/estimated_generated", outputs[0].pose)
    terms |= _angles("pose/generated", poses.pose)
    return Phase(loss, _detached(terms))


def discriminator_r1(
    generator: Generator,
    discriminator: Discriminator,
    real: RealBatch,
    transform: DiscriminatorTransform,
) -> Phase:
    """R1: gamma/2 times the squared gradient of the score at photographs (Mescheder et al. 2018).

    The gradient is taken with respect to the images before blur and augmentation, as in Karras et
    al. 2020b; with dual discrimination the raw image counts as an input of its own.
    """
    raw = resize(real.images, generator.raw_resolution)
    inputs = [real.images, raw] if discriminator.dual else [real.images]
    inputs = [x.detach().requires_grad_() for x in inputs]
    raw = blur(inputs[-1], transform.sigma)
    score = discriminate(discriminator, inputs[0], raw, transform, real.condition).score
    gradients = torch.autograd.grad(score.sum(), inputs, create_graph=True)
    penalty = torch.stack([gradient.square().sum(dim=(1, 2, 3)) for gradient in gradients]).sum(0)
    loss = generator.config.loss.gamma / 2 * penalty.mean()
    return Phase(loss, _detached({"D/r1_penalty": penalty}))


def depth_spread(view: View) -> Tensor:
    """Standard deviation of depth weighted by opacity, [B], in world units; zero for a plane."""
    weight = view.opacity / view.opacity.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-8)
    mean = (weight * view.depth).sum(dim=(1, 2, 3), keepdim=True)
    return (weight * (view.depth - mean).square()).sum(dim=(1, 2, 3)).sqrt()


def _discriminate_all(
    discriminator: Discriminator, parts: list[DiscriminatorInput], transform: DiscriminatorTransform
) -> list[DiscriminatorOutput]:
    """D's output on batches of equal size, in one pass unless some conditions alone are known."""
    conditions = [part.condition for part in parts if part.condition is not None]
    if 0 < len(conditions) < len(parts):
        return [discriminate(discriminator, *part[:2], transform, part[2]) for part in parts]
    image, raw = torch.cat([part.image for part in parts]), torch.cat([part.raw for part in parts])
    condition = torch.cat(conditions) if conditions else None
    output = discriminate(discriminator, image, raw, transform, condition, batches=len(parts))
    scores, poses = (part.chunk(len(parts)) for part in output)
    return [DiscriminatorOutput(*pair) for pair in zip(scores, poses, strict=True)]


def _sum_of_means(losses: list[Tensor]) -> Tensor:
    return torch.stack([loss.mean() for loss in losses]).sum()


def _named(prefix: str, values: list[Tensor]) -> dict[str, Tensor]:
    return dict(zip((f"{prefix}_own_view", f"{prefix}_mirrored"), values, strict=False))


def _angles(prefix: str, pose: Tensor) -> dict[str, Tensor]:
    return {f"{prefix}_h": pose[:, 0], f"{prefix}_v": pose[:, 1]}


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in terms.items()}


class PhaseLosses(NamedTuple):
    """The losses of the four phases; a trainer can be given others, to compare schedules."""

    generator_main: Callable[..., Phase] = generator_main
    generator_density: Callable[..., Phase] = generator_density
    discriminator_main: Callable[..., Phase] = discriminator_main
    discriminator_r1: Callable[..., Phase] = discriminator_r1


LOSSES = PhaseLosses()
