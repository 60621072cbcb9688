"""Generated objects held where D's moving average sees them. Not in the paper.

When objects begin to differ they may turn by themselves. D, which learns poses from them alone,
follows, and within some thousand images the poses of photographs are lost. A teacher that follows
D slowly (Tarvainen and Valpola 2017) still knows what turned before.
"""

import torch.nn.functional as F
from torch import Tensor

from training.losses import Phase, ViewLoss, discriminate
from training.networks.discriminator import Discriminator
from training.networks.generator import View
from training.step_inputs import DiscriminatorTransform


def view_losses(
    average: Discriminator, weight: Tensor | float, transform: DiscriminatorTransform
) -> list[ViewLoss]:
    """One for `losses.generator_main`, or none where the weight is 0 and no GPU has it.

    It is the mean squared error, in radians squared, of the average's estimates against the poses
    that objects are rendered from, which are taken as they are.

    Args:
        average: D's moving average, without gradients.
        weight: of the loss, a scalar; 0 for most of a run. On a GPU it is not looked at, which
            would mean to wait.
        transform: of D's images; the average sees them blurred as D does, but not augmented.
    """
    on_gpu = isinstance(weight, Tensor) and weight.device.type != "cpu"
    if not on_gpu and not weight:
        return []
    plain = transform._replace(augment=None)

    def anchor(view: View, pose: Tensor, _intrinsics: Tensor) -> Phase:
        estimate = discriminate(average, view.image, view.raw, plain).pose
        loss = F.mse_loss(estimate, pose.detach())
        return Phase(weight * loss, {"G/pose_anchor": loss})

    return [anchor]
