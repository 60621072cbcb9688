"""What the fast code is compared with: the published schedule of a step, and plain torch.

In that schedule everything runs as often as it is named: the backbone three times per main phase on
the same latents (own view, mirrored view, pose), the discriminator twice per image (pose, then
score). Same gradients as `training.losses`. Plain torch: operations as they are defined.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils import ops
from torch_utils.images import blur, resize
from torch_utils.ops.bias_act import ACTIVATIONS, bias_act_formula
from training import cameras, losses
from training.losses import Phase
from training.networks.discriminator import Discriminator, DiscriminatorOutput
from training.networks.generator import Generator, View
from training.step_inputs import DiscriminatorTransform, RealBatch, StepInputs


def render_once(
    generator: Generator, inputs: StepInputs, mirror: str | None
) -> tuple[Tensor, View]:
    """One pass through everything, for one view: pose and view."""
    latent = generator.latent(inputs.z)
    pose = generator.pose_head(latent.w)
    cam2world = generator.cam2world(pose)
    if mirror is not None:
        cam2world = cameras.mirror_cam2world(cam2world, mirror)
    planes = generator.planes(latent.ws, noise="random")
    view = generator.render(
        planes,
        latent.ws,
        cam2world[:, None],
        inputs.intrinsics,
        stochastic=inputs.stochastic,
    )
    return pose, view.select(0)


def discriminate_twice(
    discriminator: Discriminator, view: View, transform: DiscriminatorTransform
) -> DiscriminatorOutput:
    """One pass for the pose, one for the score given that pose."""
    pose = losses.discriminate(discriminator, view.image, view.raw, transform).pose
    score = discriminator(blur(view.image, transform.sigma), view.raw, pose.detach()).score
    return DiscriminatorOutput(score, pose)


def generator_main(
    generator: Generator,
    discriminator: Discriminator,
    inputs: StepInputs,
    transform: DiscriminatorTransform,
    view_losses: Sequence[losses.ViewLoss] = (),
) -> Phase:
    """The G phase of the published schedule, which has no further losses of views."""
    assert not view_losses
    outputs = []
    for mirror in (None, inputs.mirror):
        _, view = render_once(generator, inputs, mirror)
        outputs.append(discriminate_twice(discriminator, view, transform))
    _, view = render_once(generator, inputs, None)
    pose = losses.discriminate(discriminator, view.image, view.raw, transform).pose.detach()
    w = generator.latent(inputs.z).w.detach()
    consistency = F.mse_loss(generator.pose_head(w), pose)
    loss = sum(F.softplus(-output.score).mean() for output in outputs)
    return Phase(loss + generator.config.loss.pose_consistency_weight * consistency, {})


def discriminator_main(
    generator: Generator,
    discriminator: Discriminator,
    inputs: StepInputs,
    real: RealBatch,
    transform: DiscriminatorTransform,
) -> Phase:
    """The D phase of the published schedule."""
    with torch.no_grad():
        views = [render_once(generator, inputs, mirror) for mirror in (None, inputs.mirror, None)]
    (_, own), (_, mirrored), (pose, posed) = views
    loss = sum(
        F.softplus(discriminate_twice(discriminator, view, transform).score).mean()
        for view in (own, mirrored)
    )
    estimate = losses.discriminate(discriminator, posed.image, posed.raw, transform).pose
    loss = loss + generator.config.loss.pose_weight * F.mse_loss(estimate, pose)
    raw = blur(resize(real.images, generator.raw_resolution), transform.sigma)
    photographs = View(real.images, raw, raw, raw)  # only image and raw count
    output_real = discriminate_twice(discriminator, photographs, transform)
    return Phase(loss + F.softplus(-output_real.score).mean(), {})


PUBLISHED_SCHEDULE = losses.PhaseLosses(
    generator_main=generator_main, discriminator_main=discriminator_main
)


def plain_bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """`bias_act` as its formula says, one operation after the other."""
    if bias is not None:
        bias = bias.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    activation = ACTIVATIONS[act]
    gain = activation.default_gain if gain is None else gain
    return bias_act_formula(x, bias, act, activation.default_alpha, gain, clamp)


def plain_upfirdn2d(
    x: Tensor,
    kernel: Tensor,
    *,
    up: int = 1,
    down: int = 1,
    padding: Sequence[int] = (0, 0, 0, 0),
    gain: float = 1,
) -> Tensor:
    """`upfirdn2d` by its definition: insert zeros, pad, convolve each channel."""
    batch, channels, height, width = x.shape
    x = F.pad(x.reshape(batch, channels, height, 1, width, 1), [0, up - 1, 0, 0, 0, up - 1])
    x = F.pad(x.reshape(batch, channels, height * up, width * up), list(padding))
    taps = (kernel * gain).flip([0, 1]).to(x.dtype)
    weight = taps.expand(channels, 1, *kernel.shape)
    return F.conv2d(x, weight, stride=down, groups=channels)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """While it holds, networks compute with the plain twins of all operations."""
    plain = ops.replaced(bias_act=plain_bias_act, upfirdn2d=plain_upfirdn2d)
    with ops.using("torch"), plain:
        yield
