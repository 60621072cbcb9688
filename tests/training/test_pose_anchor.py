"""`pose_anchor`: what it asks of G, and when a run asks for it."""

import pytest
import torch

from tests.helpers import (
    DUAL,
    PLAIN,
    small_discriminator,
    small_generator,
    tiny_config,
    write_photographs,
)
from training import losses, pose_anchor
from training.cameras import intrinsics_from_focal
from training.run.loop import open_dataset
from training.step import Trainer

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


def test_a_run_holds_objects_while_psi_grows(tmp_path):
    def trainer_of(**changes) -> Trainer:
        config = tiny_config(write_photographs(tmp_path / "photographs"), **changes)
        return Trainer(config, open_dataset(config), torch.device("cpu"))

    trainer = trainer_of(loss__pose_anchor_weight=4.0, generator__diversity_clarity=0.5)
    assert trainer.feedback.pose_anchor_weight == 0
    diversity = trainer.feedback.diversity
    diversity.psi.fill_(0.5)
    diversity.moments.copy_(torch.tensor([[0.0], [1], [0.1]]).expand(3, 2))
    assert trainer.feedback.pose_anchor_weight == 2
    trainer.step()
    assert "G/pose_anchor" in trainer.stats.collect()
    for changes in ({"generator__diversity_clarity": 0.5}, {"loss__pose_anchor_weight": 4.0}):
        trainer = trainer_of(**changes)
        trainer.step()
        assert "G/pose_anchor" not in trainer.stats.collect()
