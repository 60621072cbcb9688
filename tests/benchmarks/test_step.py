"""The rivals of the benchmark compute the same step, and it counts what they do."""

import json

import pytest
import torch
from click.testing import CliRunner

from benchmarks import naive
from benchmarks.step import Work, main
from tests.helpers import DUAL, SIZES, small_discriminator, small_generator
from training import losses


def gradients(phase: str, phase_losses: losses.PhaseLosses) -> list[torch.Tensor]:
    generator, discriminator = small_generator(DUAL), small_discriminator(DUAL)
    z, real = torch.randn(4, 16), torch.rand(4, 3, 128, 128) * 2 - 1
    arguments = [losses.StepInputs(z, generator.intrinsics, "vertical", stochastic=False)]
    arguments += [losses.RealBatch(real)] if phase == "discriminator_main" else []
    transform = losses.DiscriminatorTransform()
    getattr(phase_losses, phase)(generator, discriminator, *arguments, transform).loss.backward()
    network = generator if phase == "generator_main" else discriminator
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    # Those of the noises' strengths depend on noise, drawn anew in each pass.
    return [gradient for name, gradient in found.items() if "noise_strength" not in name]


@pytest.mark.parametrize("phase", ["generator_main", "discriminator_main"])
def test_published_schedule_in_plain_torch_has_the_same_gradients(phase):
    ours = gradients(phase, losses.PhaseLosses())
    with naive.plain_operations():
        theirs = gradients(phase, naive.PUBLISHED_SCHEDULE)
    largest = max(gradient.norm() for gradient in theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 1e-3 * b.norm() + 1e-5 * largest


def test_work_of_a_matrix_product():
    a, b = torch.zeros(2, 3), torch.zeros(3, 4)
    with Work() as done:
        a @ b
        a.flatten()  # a view costs nothing
    assert done.total.tolist() == [2 * 2 * 3 * 4, 4 * (2 * 3 + 3 * 4 + 2 * 4)]


def test_table_and_json(tmp_path):
    file = tmp_path / "numbers.json"
    arguments = ["--cfg", "toy", "--naive", "--twins", "--repeats", "1", "--json", str(file)]
    for key, value in SIZES.items():
        arguments += [] if key == "data.workers" else ["--set", f"{key}={value}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    ours, twins, published = json.loads(file.read_text())["rows"]
    assert ours["tflop"] == twins["tflop"] < published["tflop"]
    assert all(row["median"] > 0 and row["name"] in result.output for row in (ours, published))
