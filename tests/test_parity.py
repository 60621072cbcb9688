"""Agreement with the published implementation, and what `python -m tests.parity` says of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests import kinks, parity
from training.networks import layers

ALL_CHECKS = [
    pytest.param(path, check, id=f"{path.stem}-{name}")
    for path in sorted(parity.DATA.glob("*.npz"))
    for name, check in parity.checks_of(path.stem).items()
]


@pytest.mark.parametrize("path, check", ALL_CHECKS)
def test_agrees_with_the_reference(path, check):
    quantities = list(check(parity.Fixture(path)))
    assert quantities
    assert not [str(quantity) for quantity in quantities if not quantity.ok]


def test_every_kind_of_file_is_there():
    names = {path.stem for path in parity.DATA.glob("*.npz")}
    assert {start for start in parity.CHECKS if any(n.startswith(start) for n in names)} == set(
        parity.CHECKS
    )


# --- The command line


def run(directory: Path):
    return CliRunner().invoke(parity.main, [str(directory)])


def copy(directory: Path, name: str, changes: dict | None = None) -> Path:
    """A file of the tests with some of its arrays changed: {key: function of the array}."""
    target = directory / f"{name}.npz"
    shutil.copy(parity.DATA / target.name, target)
    if changes:
        with np.load(target) as file:
            arrays = dict(file)
        np.savez(target, **arrays | {key: change(arrays[key]) for key, change in changes.items()})
    return target


def with_option(name: str, value: float):
    return lambda options: np.array(json.dumps(json.loads(str(options)) | {name: value}))


def test_prints_a_line_per_quantity_and_exits_with_0(tmp_path):
    copy(tmp_path, "cameras")
    shutil.copy(parity.DATA / "cameras.npz", tmp_path / "legacy_expected.npz")
    shutil.copy(parity.DATA / "cameras.npz", tmp_path / "notes.npz")
    result = run(tmp_path)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert any(line.startswith("ok") and "ffhq_cam2world" in line for line in lines)
    assert sum(line.startswith("skip") for line in lines) == 2
    assert lines[-1].endswith("quantities, 0 missed")


@pytest.mark.parametrize(
    "name, key",
    [("cameras", "flip_vertical"), ("ops", "bias_act/2/grad_b"), ("renderer_eg3d_planes", "depth")],
)
def test_an_altered_file_is_a_miss(tmp_path, name, key):
    copy(tmp_path, name, {key: lambda x: x * 1.002})
    result = run(tmp_path)
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("MISS")]
    assert key in line


def test_a_perturbed_weight_is_a_miss(tmp_path):
    def perturbed(x):
        return x + 0.01 * np.random.RandomState(0).randn(*x.shape).astype(x.dtype)

    path = copy(tmp_path, "networks_ffhq_128", {"D/b16.conv0.weight": perturbed})
    missed = {q.name for q in parity.check_networks(parity.Fixture(path)) if not q.ok}
    assert missed == {"D_pose", "D_score"}


@pytest.mark.parametrize(
    "phase, option", [("Greg", ("density_reg", 0.2505)), ("Dmain", ("dis_cam_weight", 2.01))]
)
def test_a_loss_weight_that_is_slightly_wrong_is_no_kink(tmp_path, monkeypatch, phase, option):
    """Both are off by few thousandths, as a unit on a kink might make them."""
    monkeypatch.setattr(parity, "MOST_TRIALS", 2)
    copy(tmp_path, "networks_ffhq_128", {"options": with_option(*option)})
    path = copy(tmp_path, "loss_ffhq_128_horizontal")
    quantities = parity.check_phase(parity.Fixture(path), phase)
    assert any("/grad/" in quantity.name and not quantity.ok for quantity in quantities)
    assert not any("kink" in quantity.name for quantity in quantities)


def test_a_gradient_too_many_is_a_miss(tmp_path):
    f = parity.fixture("loss_ffhq_128_horizontal")
    outcome = parity.run_phase(parity.step_of(f), "Dreg")
    outcome.gradients["b4.cam_out1.weight"] = torch.zeros(3)
    missed = [q.name for q in parity.compare_gradients(f, "Dreg", outcome) if not q.ok]
    assert missed == ["Dreg/number of gradients too many"]


def test_nothing_to_check(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        result = run(directory)
        assert result.exit_code == 1
        assert str(directory) in result.output and result.output.count("\n") == 1


def test_a_file_that_cannot_be_used_is_a_miss(tmp_path):
    (tmp_path / "cameras.npz").write_bytes(b"PK\x03\x04 but no zip")
    copy(tmp_path, "loss_ffhq_128_vertical")  # without its networks
    np.savez(tmp_path / "renderer_empty.npz")
    result = run(tmp_path)
    assert result.exit_code == 1
    lines = [line for line in result.output.splitlines() if line.startswith("MISS")]
    assert len(lines) == 1 + len(parity.PHASES) + 1
    assert all("cannot be checked" in line for line in lines)


# --- Kinks


def test_kinks_of_an_activation():
    assert kinks.kinks_of(act="linear") == []
    zero, low, high = kinks.kinks_of(act="lrelu", gain=2.0, clamp=4.0)
    assert zero == pytest.approx((0.0, 0.4, 2.0))
    assert low == pytest.approx((-10.0, 0.0, 0.4))
    assert high == pytest.approx((2.0, 2.0, 0.0))


def test_moving_a_unit_changes_its_gradient_as_foretold_and_hardly_its_value():
    torch.manual_seed(0)
    layer = layers.FullyConnected(4, 3, act="lrelu")
    with torch.no_grad():
        layer.weight[1] = 0
        layer.bias[1] = 1e-7
    x = torch.randn(2, 4)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(layer(x).square().sum() + layer(x).sum(), layer.bias)[0]

    with kinks.KinkWatch([layer]) as watch:
        before = gradient()
    # Two samples, and the layer is called twice.
    assert [(unit.channel, unit.call) for unit in watch.units] == [(1, 0), (1, 0), (1, 1), (1, 1)]
    moved = watch.units[2]
    with kinks.KinkWatch([layer], [moved]):
        after = gradient()
    expected = before + moved.change * torch.eye(3)[1]
    torch.testing.assert_close(after, expected)
    assert moved.change == pytest.approx(-0.8 * 2**0.5)
    torch.testing.assert_close(gradient(), before)  # and the patch is gone


def test_a_unit_on_its_kink_is_settled_and_listed(tmp_path):
    """As if the reference had taken the other slope of one unit."""
    name = "loss_ffhq_128_horizontal"
    f = parity.fixture(name)
    step = parity.step_of(f)
    with kinks.KinkWatch(step.networks) as watch:
        parity.run_phase(step, "Dreg")
    unit = max(watch.units, key=lambda unit: unit.share)
    with kinks.KinkWatch(step.networks, [unit]):
        theirs = parity.run_phase(step, "Dreg").gradients

    norms = np.array([theirs[key].norm().item() for key in f.json("Dreg/grad_names")])
    stored = {key: theirs[key].numpy() for key in f.below("Dreg/grad/")}
    changes = {f"Dreg/grad/{key}": lambda _, key=key: stored[key] for key in stored}
    copy(tmp_path, "networks_ffhq_128")
    path = copy(tmp_path, name, changes | {"Dreg/grad_norms": lambda _: norms})

    as_they_are = parity.compare_gradients(
        parity.Fixture(path), "Dreg", parity.run_phase(step, "Dreg")
    )
    assert not all(quantity.ok for quantity in as_they_are)
    settled = parity.check_phase(parity.Fixture(path), "Dreg")
    assert all(quantity.ok for quantity in settled)
    (listed,) = [quantity.name for quantity in settled if "kink" in quantity.name]
    assert f"unit {unit.index} of {unit.layer}" in listed
