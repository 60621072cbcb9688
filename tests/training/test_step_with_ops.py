"""Native operations and plain torch give the same training step."""

import pytest
import torch

from tests.helpers import DUAL, PLAIN, small_discriminator, small_generator
from torch_utils import ops
from training import losses

CPU = torch.device("cpu")
PHASES = ("generator_main", "generator_density", "discriminator_main", "discriminator_r1")


@pytest.fixture(autouse=True)
def restored_mode():
    mode = ops.get_mode()
    yield
    ops.set_mode(mode)


def gradients(phase: str, sizes: dict) -> dict[str, torch.Tensor]:
    """The loss of a phase and its gradients, all draws the same in each call."""
    generator, discriminator = small_generator(sizes), small_discriminator(sizes)
    size = generator.config.data.resolution
    z, real = torch.randn(4, 16), torch.rand(4, 3, size, size) * 2 - 1
    # Depths that depend on rounding would make pixels jump: none are random.
    inputs = losses.StepInputs(z, generator.intrinsics, "horizontal", stochastic=False)
    transform = losses.DiscriminatorTransform()
    points = torch.rand(4, 50, 3) - 0.5
    arguments = {
        "generator_main": (discriminator, inputs, transform),
        "generator_density": (z, points, points + 0.01),
        "discriminator_main": (discriminator, inputs, losses.RealBatch(real), transform),
        "discriminator_r1": (discriminator, losses.RealBatch(real), transform),
    }
    loss = getattr(losses, phase)(generator, *arguments[phase]).loss
    loss.backward()
    network = generator if phase.startswith("generator") else discriminator
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach()}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("sizes", [PLAIN, DUAL], ids=["plain", "dual"])
def test_every_phase_agrees_between_native_and_torch(phase, sizes):
    if ops.native_library(CPU) is None:
        pytest.skip("no compiler")
    found = {}
    for mode in ("torch", "native"):
        ops.set_mode(mode)
        found[mode] = gradients(phase, sizes)
    assert found["torch"].keys() == found["native"].keys()
    largest = max(value.norm() for value in found["torch"].values())
    for name, expected in found["torch"].items():
        error = (found["native"][name] - expected).norm()
        assert error <= 1e-3 * expected.norm() + 1e-5 * largest, name
