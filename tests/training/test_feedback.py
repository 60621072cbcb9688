"""What training adjusts to the discriminator's outputs."""

import math

import pytest
import torch

from tests.helpers import record_gradients, set_diversity, tiny_config, write_photographs
from training.feedback import AdaptiveR1, Diversity, SpreadBalance
from training.networks.mapping import PoseMapping
from training.run.loop import open_dataset
from training.step import Trainer

CONSTANT_R1 = torch.tensor(0.0)


def test_r1_grows_while_scores_are_too_far_apart_and_falls_back():
    adaptive = AdaptiveR1(gap=1.5)
    assert adaptive.factor == 1

    def factor_after(gap: float, steps: int) -> float:
        for _ in range(steps):
            adaptive.observe(torch.full((4, 1), gap), torch.zeros(8, 1))
        return adaptive.factor.item()

    assert factor_after(1.0, 50) == 1  # never below where it starts
    grown = factor_after(9.0, 250)
    assert 6 < grown < 9  # e in 125 steps at most
    assert factor_after(9.0, 2000) == pytest.approx(100, rel=1e-4)
    assert factor_after(0.0, 2000) == 1


def test_r1_of_a_step_has_the_factor_that_was_found(tmp_path):
    """Ten times the factor is ten times the weight."""
    photographs = write_photographs(tmp_path / "photographs")

    def gradient(factor: float, gamma: float) -> torch.Tensor:
        config = tiny_config(photographs, loss__gamma_gap=1.5, loss__gamma=gamma)
        trainer = Trainer(config, open_dataset(config), torch.device("cpu"))
        trainer.feedback.r1.log_factor.fill_(factor).log_()
        parameters = trainer.discriminator.b8.parameters()
        gradients = record_gradients(trainer.d_optimizer, parameters)
        trainer.step()
        return gradients[-1]

    assert torch.equal(gradient(1, 1.0), gradient(1, 1.0))
    torch.testing.assert_close(gradient(8, 0.25), gradient(1, 2.0))
    assert not torch.allclose(gradient(8, 0.25), gradient(1, 0.25), rtol=0.1)


def test_spread_balance_is_the_ratio_of_the_spreads():
    torch.manual_seed(0)
    balance = SpreadBalance(rate=0.1, scale=lambda factor, center: None)
    assert balance.gap().tolist() == [0, 0]
    for _ in range(500):
        photographs = torch.randn(8, 2) * torch.tensor([0.4, 0.1]) + torch.tensor([1.5, 0.0])
        balance.observe(photographs, torch.randn(8, 2) * 0.2)
    assert balance.gap().tolist() == pytest.approx([math.log(2), -math.log(2)], abs=0.1)


@torch.no_grad()
@pytest.mark.parametrize("spread, wanted", [((0.8, 0.6), (0.8, 0.4)), ((0.3, 0.3), (0.4, 0.4))])
def test_spread_balance_widens_yaw_to_that_of_photographs_and_keeps_the_mean(spread, wanted):
    """D's estimates are half the true poses, so that only their ratio tells. Nothing else moves."""
    torch.manual_seed(0)
    mapping = PoseMapping(64, 64, layers=2, mean_h=1.5)
    mapping.spread_poses((0.4, 0.4))
    balance, z = SpreadBalance(0.002, mapping.scale_poses), torch.randn(4000, 64)
    w = mapping(z)
    mean = mapping.pose(w).mean(dim=0)
    for _ in range(3000):
        chosen = torch.randint(len(z), (8,))
        photographs = mean + torch.randn(8, 2) * torch.tensor(spread)
        balance.observe(photographs / 2 + mean / 2, mapping.pose(w[chosen]) / 2 + mean / 2)
        balance.adjust(trust=1.0)
    poses = mapping.pose(w)
    assert poses.std(dim=0).tolist() == pytest.approx(wanted, rel=0.1)
    assert (poses.mean(dim=0) - mean).abs().max() < 0.05


def test_poses_are_balanced_as_objects_differ_and_cameras_are_known(tmp_path):
    photographs = write_photographs(tmp_path / "photographs")

    def widened(psi: float, explained: float) -> torch.Tensor:
        changes = {"camera__spread_rate": 50, "generator__diversity_clarity": 0.7}
        config = tiny_config(photographs, **changes)
        trainer = Trainer(config, open_dataset(config), torch.device("cpu"))
        trainer.step()
        set_diversity(trainer.feedback.diversity, psi, explained)
        before = trainer.generator.mapping.affine_layer2.weight.clone()
        trainer.step()
        return (trainer.generator.mapping.affine_layer2.weight / before).log().abs().mean(dim=1)

    assert (widened(psi=0, explained=0.9) < 1e-3).all()  # Adam alone
    assert (widened(psi=1, explained=0.6) < 1e-3).all()
    yaw, pitch = widened(psi=1, explained=0.9)
    assert yaw > 1e-2 and pitch < 1e-3


def test_objects_become_different_while_cameras_are_read_from_images_and_alike_when_not():
    torch.manual_seed(0)
    diversity = Diversity(clarity=0.5)

    def psi_after(noise: float, steps: int) -> float:
        for _ in range(steps):
            poses = torch.randn(8, 2) * 0.4
            diversity.observe(poses, poses + torch.randn(8, 2) * noise, CONSTANT_R1)
        return diversity.psi.item()

    assert psi_after(noise=0.4, steps=300) == 0
    assert 0.3 < psi_after(noise=0.1, steps=600) < 0.6  # 1000 steps from 0 to 1 at best
    assert diversity.explained().item() == pytest.approx(1 - 0.1**2 / 0.4**2, abs=0.03)
    assert psi_after(noise=0.1, steps=200) > 0.5
    assert psi_after(noise=0.4, steps=880) == 0


@pytest.mark.parametrize("log_factor, grows", [(0.0, False), (0.9, False), (2.0, True), (4, True)])
def test_objects_become_different_sooner_where_d_knows_the_one_there_is(log_factor, grows):
    """With 0.6 of the variance explained, 0.7 asked, and 0.5 where R1 has grown by e^2 or more."""
    diversity, r1 = Diversity(clarity=0.7), torch.tensor(log_factor)
    poses = torch.tensor([[-0.4, 0.4], [0.4, -0.4]])
    for _ in range(200):
        diversity.observe(poses, poses * (1 - 0.4**0.5), r1)
    assert diversity.explained().item() == pytest.approx(0.6, abs=1e-4)
    assert (diversity.psi.item() > 0.19) == grows
    assert diversity.asked(r1).item() == pytest.approx(max(0.7 - 0.1 * log_factor, 0.5))


def test_objects_are_held_while_they_begin_to_differ_and_cameras_are_known():
    poses = torch.tensor([[-0.4, 0.4], [0.4, -0.4]])

    def held(explained: float, steps: int) -> float:
        diversity = Diversity(clarity=0.7)
        assert diversity.hold() == 0
        for _ in range(steps):
            diversity.observe(poses, poses * (1 - (1 - explained) ** 0.5), CONSTANT_R1)
        return diversity.hold().item()

    assert held(explained=0.9, steps=500) == pytest.approx(0.5, abs=0.01)
    assert held(explained=0.75, steps=2000) == pytest.approx(0.5, abs=0.01)
    assert held(explained=0.9, steps=3000) == pytest.approx(1, abs=0.01)
    assert held(explained=0.9, steps=3500) == pytest.approx(0.5, abs=0.01)
    assert held(explained=0.9, steps=4000) == pytest.approx(0, abs=0.01)
    assert held(explained=0.65, steps=1000) == 0


def test_objects_that_look_alike_from_all_sides_become_different_in_the_end():
    diversity, unknown = Diversity(clarity=0.5), torch.tensor([[-0.4, 0.4], [0.4, -0.4]])
    found = []
    for _ in range(22_000):
        diversity.observe(unknown, torch.zeros(2, 2), CONSTANT_R1)
        found.append(diversity.psi.item())
    assert found[1999] == 0 and found[11_999] == pytest.approx(0.5) and found[-1] == 1
