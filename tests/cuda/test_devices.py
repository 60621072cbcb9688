"""Training and every command on a device that is not the CPU (see far_device.py)."""

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from pof3d.commands import (
    calc_metrics,
    estimate_poses,
    estimate_shape,
    gen_samples_pose,
    gen_videos,
    project,
    train,
)
from pof3d.viewer.rendering import Detail, FreeCamera, render_frame
from tests.cuda.far_device import DEVICE, Far, WrongDevice
from tests.helpers import (
    DUAL,
    PLAIN,
    set_diversity,
    small_config,
    small_discriminator,
    small_generator,
    tiny_arguments,
)
from tests.pof3d.test_readme import with_surface
from torch_utils import devices, ops
from torch_utils.training_stats import Stat
from training.data.toy_set import make_toy_dataset
from training.evaluation import measuring
from training.files.network_file import load_network, save_network
from training.networks.image_formation import frustum_of
from training.networks.inverse_renderer import InverseRenderer
from training.outputs.objects import Objects
from training.run import loop
from training.step import Trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def adam_of_the_far_device(monkeypatch):
    """Torch lists the devices for which it has a fused Adam."""
    name = "_get_fused_kernels_supported_devices"
    modules = ("torch.optim.adam", "torch.optim.optimizer", "torch.utils._foreach_utils")
    for module in (importlib.import_module(each) for each in modules):
        if name in vars(module):
            monkeypatch.setattr(module, name, lambda: ["cpu", "cuda", "meta"])


def test_tensors_of_two_devices_do_not_meet():
    with Far() as far:
        x = torch.randn(3, 4, device=DEVICE)
        for wrong in (
            lambda: x + torch.zeros(3, 4),
            lambda: x @ torch.zeros(4, 4),
            lambda: torch.cat([x, torch.zeros(3, 4)]),
            lambda: x[..., (0, 1)],
        ):
            with pytest.raises(WrongDevice):
                wrong()
        with pytest.raises(RuntimeError, match="numpy"):
            x.numpy()
        assert (x * torch.tensor(2.0)).device == DEVICE  # a number
        assert not far.synchronizations


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.tensor([1.0], device=DEVICE),
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x.copy_(torch.zeros(3, 4)),
        lambda x: torch.zeros(3, 4).copy_(x),
    ],
)
def test_waiting_for_the_device_is_counted(wait):
    with Far() as far:
        x = torch.randn(3, 4, device=DEVICE)
        assert not far.synchronizations
        wait(x)
        assert sum(far.synchronizations.values()) >= 1
        before = far.synchronizations.copy()
        devices.constant([1.0, 2.0], x)
        torch.zeros(3, 4).to(DEVICE, non_blocking=True)
        assert far.synchronizations == before


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    """Images with camera labels."""
    path = tmp_path_factory.mktemp("heads") / "heads.zip"
    make_toy_dataset(path, 12, 32, seed=0, labels=True)
    return path


FOR_KERNELS = {  # sizes that the GPU kernel of triplane_render has
    "generator.plane_channels": 16,
    "generator.feature_channels": 16,
    "data.workers": 0,
    "run.batch": 4,
}
ADA = {"augment__mode": "ada", "augment__every": 2, "augment__kimg": 0.04}
CASES = {
    "plain": (PLAIN, ADA | {"generator__style_mixing": 0.5, "loss__pose_entropy_weight": 0.1}),
    "labels": (PLAIN, {"camera__poses": "dataset", "camera__intrinsics": "labels"}),
    "geod": (
        PLAIN,
        {
            "geod__weight_start": 0.01,
            "geod__weight_end": 0.1,
            "geod__start_kimg": 0.0,
            "geod__end_kimg": 0.02,
            "geod__width": 16,
            "geod__features": "random",
        },
    ),
    "adjusted": (
        PLAIN,
        {
            "generator__diversity_clarity": 0.5,
            "camera__spread_rate": 50,
            "loss__gamma_gap": 0.1,
            "loss__pose_anchor_weight": 1.0,
        },
    ),
}


FP16 = (DUAL, {"run__precision": "fp16", "augment__mode": "fixed", "run__batch": 2})


def trained(heads: Path, case: str, device: torch.device, steps: int, watch) -> Trainer:
    sizes, changes = FP16 if case == "fp16" else CASES[case]
    config = small_config(sizes | FOR_KERNELS | {"data.path": str(heads)}, **changes)
    trainer = Trainer(config, loop.open_dataset(config), device)
    if trainer.supervisor is not None:
        _ = trainer.supervisor.features  # copied to the device once
    if config.loss.pose_anchor_weight:  # it is in force then
        set_diversity(trainer.feedback.diversity, psi=0.5, explained=0.9)
    for step in range(steps):
        watch(step)
        trainer.step()
    watch(steps)
    return trainer


def phases(case: str, step: int) -> int:
    """How many phases a step has."""
    return 2 + (step % 4 == 0) + (step % 16 == 0) + (case == "geod")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_training_agrees_with_the_cpu_and_waits_once_in_a_phase(heads, case, request):
    """With the kernels of a GPU, compiled for the host."""
    torch.set_num_threads(1)
    with ops.using("torch"):
        expected = trained(heads, case, CPU, 2, watch=lambda step: None).stats.collect()
    request.getfixturevalue("gpu")
    found = watched(heads, case, steps=2)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].mean == pytest.approx(expected[name].mean, rel=2e-3, abs=1e-3), name


@pytest.mark.slow
def test_training_in_half_precision_waits_once_in_a_phase(heads, gpu):
    torch.set_num_threads(1)
    stats = watched(heads, "fp16", steps=1)
    assert all(math.isfinite(value.mean) for value in stats.values())


def watched(heads: Path, case: str, steps: int) -> dict[str, Stat]:
    """Statistics of training on the far device, which may wait once in each phase."""
    waits = []
    with Far() as far:
        trainer = trained(
            heads, case, DEVICE, steps, watch=lambda _: waits.append(far.synchronizations.copy())
        )
        stats = trainer.stats.collect()
    for step in range(steps):
        new = waits[step + 1] - waits[step]
        adapted = case == "plain" and step % 2 == 1  # every second step, see ADA
        assert sum(new.values()) == phases(case, step) + adapted, new
    assert stats["steps_skipped"].mean == 0
    return stats


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    generator = with_surface(small_generator(geod__width=16).eval())
    inverse_renderer = InverseRenderer(frustum_of(generator.config), width=16)
    save_network(path, generator, small_discriminator(), {}, inverse_renderer=inverse_renderer)
    return path


@pytest.fixture
def far(monkeypatch):
    """Whatever device is asked for, it is the far one."""
    for module in (devices, loop, measuring):
        monkeypatch.setattr(module, "select_device", lambda choice: DEVICE)
    with Far() as far:
        yield far


def run(command, *arguments) -> str:
    result = CliRunner().invoke(command.main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


TRAINING = [
    *("--kimg", "0.008", "--tick", "0.004", "--snap", "1", "--cfg", "toy"),
    *tiny_arguments(),
]
SAMPLES = ["--seeds", "0-1", "--shapes", "1", "--shape-res", "16"]
PROJECTION = ["--steps", "2", "--frames", "2", "--shape-res", "16", "--perceptual-weight", "0"]
METRICS = ["--num-gen", "8", "--verbose", "false", "--metrics"]
METRICS += ["pose_error,pose_distribution,pose_flip_consistency,relief,view_consistency"]
COMMANDS = {
    "samples": (gen_samples_pose, ["--network", "NETWORK", *SAMPLES, "--outdir", "OUT"]),
    "projection": (project, ["PHOTO", "--network", "NETWORK", *PROJECTION, "--outdir", "OUT"]),
    "video": (
        gen_videos,
        ["--network", "NETWORK", "--seeds", "0", "--frames", "2", "--dest", "OUT/a.gif"],
    ),
    "poses": (
        estimate_poses,
        ["--network", "NETWORK", "--data", "DATA", "--dest", "OUT/estimated.json"],
    ),
    "shapes": (estimate_shape, ["--network", "NETWORK", "--data", "PHOTOS", "--outdir", "OUT"]),
    "metrics": (calc_metrics, ["--network", "NETWORK", "--data", "DATA", *METRICS]),
    "training": (train, ["--data", "DATA", "--outdir", "OUT", *TRAINING]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_do_on_a_device_what_they_do_on_the_cpu(
    name, network, heads, photographs, tmp_path, request
):
    torch.set_num_threads(1)
    command, options = COMMANDS[name]
    outcomes = []
    for where in ("cpu", "far"):
        if where == "far":
            request.getfixturevalue("far")
        (tmp_path / where).mkdir()
        files = {
            "NETWORK": network,
            "PHOTOS": photographs,
            "PHOTO": photographs / "000.png",
            "DATA": heads,
            "OUT": tmp_path / where,
        }
        filled = options
        for word, path in files.items():
            filled = [option.replace(word, str(path)) for option in filled]
        with ops.using("torch"):
            output = run(command, *filled, "--device", "cpu")
        outcomes.append(pictures(tmp_path / where) | numbers(output))
    assert outcomes[0].keys() == outcomes[1].keys() and outcomes[0]
    for name, expected in outcomes[0].items():
        tolerance = 0.5 if expected.ndim > 2 else 1e-3  # of gray levels, of numbers
        assert np.abs(outcomes[1][name] - expected).mean() < tolerance, name


def test_a_browsers_frame_is_the_same_on_a_device(network, request):
    torch.set_num_threads(1)
    frames = []
    for where in (CPU, DEVICE):
        if where == DEVICE:
            request.getfixturevalue("far")
        generator = load_network(network, where).generator
        objects = Objects.from_seeds(generator, [0])
        cam2world = generator.cam2world(generator.pose_from_degrees(torch.zeros(1, 2)).to(where))
        camera = FreeCamera(cam2world[0], fov=0.3, aspect=1.5)
        frame = render_frame(objects, camera, Detail(16))
        assert frame is not None
        frames.append(frame.picture.astype(float))
    assert np.abs(frames[0] - frames[1]).mean() < 0.5


def numbers(output: str) -> dict[str, np.ndarray]:
    """Of a metric's lines, by name."""
    lines = (json.loads(line) for line in output.splitlines() if line.startswith('{"results"'))
    return {name: np.array(value) for line in lines for name, value in line["results"].items()}


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """Of all files that show something, by name."""
    found = {}
    for path in sorted(folder.rglob("*.*")):
        if path.suffix in (".png", ".gif"):
            found[path.name] = np.array(Image.open(path).convert("RGB")).astype(float)
        elif path.name == "estimated.json":
            found[path.name] = np.array([row for _, row in json.loads(path.read_text())["labels"]])
    return found
