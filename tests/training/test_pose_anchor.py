"""`pose_anchor`: what it asks of G; when a run asks for it is in test_step."""

import pytest
import torch

from tests.helpers import DUAL, PLAIN, small_discriminator, small_generator
from training import losses, pose_anchor
from training.cameras import intrinsics_from_focal

BATCH = 4
PLAINLY = losses.DiscriminatorTransform()


@pytest.mark.parametrize("sizes", [PLAIN, DUAL], ids=["plain", "dual"])
def test_objects_are_moved_to_where_the_average_sees_their_cameras(sizes):
    """A step down the loss's own gradient lowers it."""
    generator, discriminator = small_generator(sizes), small_discriminator(sizes)
    average = small_discriminator(sizes).requires_grad_(False)
    inputs = losses.StepInputs(torch.randn(BATCH, 16), intrinsics_from_focal(4.2647), "horizontal")

    def run(weight: float | torch.Tensor, transform=PLAINLY) -> losses.Phase:
        torch.manual_seed(0)
        anchors = pose_anchor.view_losses(average, weight, transform)
        networks = generator, discriminator
        return losses.generator_main(*networks, inputs, PLAINLY, anchors)

    def gradients(weight: float, name: str) -> torch.Tensor:
        return torch.autograd.grad(run(weight).loss, generator.get_parameter(name))[0]

    held, free = run(2.0), run(0.0)
    distance = held.terms["G/pose_anchor"].item()
    assert "G/pose_anchor" not in free.terms | run(torch.zeros([])).terms
    assert (held.loss - free.loss).item() == pytest.approx(2 * distance, rel=1e-4)
    negative = losses.DiscriminatorTransform(augment=lambda image, raw: (-image, raw))
    assert run(2.0, negative).terms["G/pose_anchor"].item() == distance  # it sees plain images
    name = "decoder.net.0.weight"
    change = gradients(2.0, name) - gradients(0.0, name)
    with torch.no_grad():
        generator.get_parameter(name).sub_(0.01 * change / change.norm())
    assert run(2.0).terms["G/pose_anchor"].item() < distance
