"""One command for whoever has a GPU: does everything work on it, and how fast is it?

    benchmarks/gpu.sh [--dest docs/performance-gpu.md]          under 25 minutes on one H100
    benchmarks/gpu.sh --device cpu --quick --dest FILE          the same in miniature, on a CPU

runs the stages below, each in a process of its own and within its time; one that fails does not
stop the others. The report has what each printed. The exit status is 1 if any has failed.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from benchmarks.step import clock, peak_gb, write_noise
from dnnlib import Command, UserError, atomic_write
from torch_utils import ops
from torch_utils.devices import select_device
from training import losses
from training.config import Config
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import PRESETS, build_config
from training.run.loop import open_dataset
from training.step import Trainer

ROOT = Path(__file__).parents[1]
PAPER = ("ffhq", "cats", "shapenet_cars")
PER_GPU = 4  # images: the paper's batch of 32 on eight GPUs

# Sizes of --quick: everything is there, and takes seconds on a CPU.
QUICK: dict[str, Any] = {
    "data.resolution": 32,
    "generator.z_dim": 16,
    "generator.w_dim": 16,
    "generator.channel_base": 512,
    "generator.channel_max": 16,
    "generator.plane_resolution": 16,
    "generator.plane_channels": 4,
    "generator.decoder_hidden": 8,
    "generator.feature_channels": 4,
    "discriminator.channel_base": 512,
    "discriminator.channel_max": 16,
    "discriminator.dual": False,
    "rendering.raw_resolution": 32,
    "rendering.samples": 4,
    "rendering.importance_samples": 4,
    "rendering.sampling_multiplier": 1,
}

# The largest difference from the CPU, relative to the largest value. In single precision sums are
# ordered otherwise; in half precision each layer of the super-resolution and of D rounds.
TOLERANCES = {"fp32": 2e-3, "fp16": 5e-2}
# Gradients are sums over all pixels, of terms that nearly cancel.
GRADIENT_TOLERANCES = {"fp32": 2e-2, "fp16": 2e-1}


class Setup(NamedTuple):
    """What a stage is told."""

    device: torch.device
    quick: bool

    def config(self, preset: str, **changes: Any) -> Config:
        """changes: section__field=value."""
        small = QUICK if self.quick else {}
        named = {key.replace("__", ".", 1): value for key, value in changes.items()}
        return build_config(preset, small | {"data.workers": 0, "run.seed": 0} | named)


class Stage(NamedTuple):
    """run: yields lines of the report; an exception is a failure. limit: seconds."""

    title: str
    run: Callable[[Setup], Iterator[str]]
    limit: int


def environment(setup: Setup) -> Iterator[str]:
    """What is here, and whether the kernels can be built for it."""
    yield f"* Python {platform.python_version()}, torch {torch.__version__}"
    if setup.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setup.device)
        yield (
            f"* {torch.cuda.device_count()} x {properties.name}, compute capability "
            f"{properties.major}.{properties.minor}, {properties.total_memory / 2**30:.0f} GiB; "
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    status = ops.status(setup.device)
    yield f"* {status}"
    if setup.device.type == "cuda" and "torch" in status.removeprefix("ops: "):
        raise UserError("not all kernels could be built: is nvcc there, and as new as the GPU?")


def kernels(setup: Setup) -> Iterator[str]:
    """The tests of kernels, on the device; on a CPU those of the kernels compiled for the host."""
    where = "device" if setup.device.type == "cuda" else ""
    some = ["-k", "test_triplane_render or test_rasterizer"] if setup.quick else []
    for tests in ("tests/cuda/test_kernels.py", "neural_renderer/tests/test_nr_native.py"):
        command = [*("-m", "pytest", "-q", "-p", "no:cacheprovider"), tests, *some]
        yield f"* {tests}: {_last_line(command, CUDA_ON_HOST=where)}"
        some = []


def agreement(setup: Setup) -> Iterator[str]:
    """The same networks and inputs on the CPU and on the device."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield "| preset | precision | image | raw | depth | score | pose | gradients of G |"
    yield "|" + " --- |" * 8
    wrong = []
    for preset in PRESETS:
        expected = _outputs(setup.config(preset), torch.device("cpu"))
        for precision, most in TOLERANCES.items():
            config = setup.config(preset, run__precision=precision)
            errors = []
            for name, value in _outputs(config, setup.device).items():
                errors.append(_relative_error(value, expected[name]))
                allowed = GRADIENT_TOLERANCES[precision] if name == "gradients" else most
                if not errors[-1] <= allowed:
                    wrong.append(f"{preset} {precision} {name}: {errors[-1]:.1e} > {allowed}")
            yield f"| {preset} | {precision} | " + " | ".join(f"{e:.1e}" for e in errors) + " |"
    if wrong:
        raise UserError("; ".join(wrong))


def _outputs(config: Config, device: torch.device) -> dict[str, Tensor]:
    torch.manual_seed(0)
    generator, discriminator = Generator(config).to(device), Discriminator(config).to(device)
    if config.run.precision == "fp16":
        generator.set_inner_dtype(torch.float16)
        discriminator.set_inner_dtype(torch.float16)
    z = torch.randn(2, config.generator.z_dim).to(device)
    latent = generator.latent(z)
    planes = generator.planes(latent.ws, noise="const")
    assert latent.pose is not None  # all presets learn poses
    cam2world = generator.cam2world(latent.pose)[:, None]
    rendered = generator.render(
        planes, latent.ws, cam2world, generator.intrinsics, stochastic=False
    )
    view = rendered.select(0)
    output = losses.discriminate(
        discriminator, view.image, view.raw, losses.DiscriminatorTransform()
    )
    loss = torch.nn.functional.softplus(-output.score).mean()
    found = torch.autograd.grad(loss, list(generator.parameters()), allow_unused=True)
    values = {
        "image": view.image,
        "raw": view.raw,
        "depth": view.depth,
        "score": output.score,
        "pose": output.pose,
        "gradients": torch.cat([g.flatten() for g in found if g is not None]),
    }
    return {name: value.detach().cpu().double() for name, value in values.items()}


def _relative_error(value: Tensor, expected: Tensor) -> float:
    """Root mean square difference over root mean square; a single ray may hit another surface."""
    return ((value - expected).norm() / expected.norm()).item()


def training(setup: Setup) -> Iterator[str]:
    """Steps of every paper preset on noise, whose losses and weights must stay finite."""
    steps = 2 if setup.quick else 200
    yield "| preset | precision | steps | skipped | seconds a step | peak GiB |"
    yield "|" + " --- |" * 6
    for preset in PAPER:
        for precision in ("fp32", "fp16"):
            with tempfile.TemporaryDirectory() as folder:
                trainer = _trainer(setup, preset, Path(folder), run__precision=precision)
                trainer.step()
                read = clock(setup.device)
                start = read()
                for _ in range(steps - 1):
                    trainer.step()
                seconds = ((read() - start) / (steps - 1)).item()
            skipped = trainer.stats.collect()["steps_skipped"].mean * steps
            peak = peak_gb(setup.device)
            yield (
                f"| {preset} | {precision} | {steps} | {skipped:.0f} | {seconds:.3f} | {peak:.1f} |"
            )
            if skipped or not _is_finite(trainer):
                raise UserError(f"{preset} in {precision}: not finite")
            del trainer
            if setup.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def _trainer(setup: Setup, preset: str, folder: Path, **changes: Any) -> Trainer:
    sizes = {"run__batch": PER_GPU, "data__path": str(folder)} | changes
    config = setup.config(preset, **sizes)
    write_noise(folder, 2 * PER_GPU, config.data.resolution)
    return Trainer(config, open_dataset(config), setup.device)


def _is_finite(trainer: Trainer) -> bool:
    networks = (trainer.generator, trainer.discriminator, trainer.averaged_generator)
    return all(bool(p.isfinite().all()) for network in networks for p in network.parameters())


def resume(setup: Setup) -> Iterator[str]:
    """A state that is saved and loaded is the same; the step after it is too, but for atomics."""
    with tempfile.TemporaryDirectory() as folder:
        first = _trainer(setup, "ffhq", Path(folder))
        for _ in range(2):
            first.step()
        path = Path(folder) / "state.pt"
        torch.save(first.state_dict(), path)
        second = Trainer(first.config, open_dataset(first.config), setup.device)
        state = torch.load(path, weights_only=True, map_location="cpu")
        second.load_state_dict(state)
        differing = _differences(first.state_dict(), second.state_dict())
        first_differs = [name for name, difference in differing.items() if difference > 0]
        yield f"* state after loading: {len(differing)} tensors, {len(first_differs)} differ"
        second.load_state_dict(state)  # random states too: taking a state draws nothing
        for trainer in (first, second):
            torch.set_rng_state(state["random"]["cpu"][0])
            if setup.device.type == "cuda":
                torch.cuda.set_rng_state(state["random"]["cuda"][0], setup.device)
            trainer.step()
        after = _differences(first.state_dict()["G"], second.state_dict()["G"])
        largest = max(after.values())
        yield f"* G after one more step: largest relative difference {largest:.1e}"
    if first_differs or largest > 1e-3:
        raise UserError("resuming does not go on as before: " + ", ".join(first_differs[:5]))


def _differences(a: Any, b: Any, name: str = "") -> dict[str, float]:
    """Relative differences of all tensors in two nested states."""
    if isinstance(a, Tensor):
        x, y = a.detach().cpu().double(), b.detach().cpu().double()
        scale = x.norm().item() or 1.0
        return {name: (x - y).norm().item() / scale}
    if isinstance(a, dict):
        pairs = [(f"{name}.{key}", a[key], b[key]) for key in a]
    elif isinstance(a, list | tuple):
        pairs = [(f"{name}.{i}", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return {name: float(a != b)}
    return {k: v for key, x, y in pairs for k, v in _differences(x, y, key).items()}


def processes(setup: Setup) -> Iterator[str]:
    """Two processes, one device each."""
    if setup.device.type == "cuda" and torch.cuda.device_count() < 2:
        yield "* not run: there is one GPU"
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        sizes = QUICK if setup.quick else {"data.resolution": 128}
        write_noise(data, 2 * PER_GPU, sizes["data.resolution"])
        command = [str(ROOT / "train.py"), "--cfg", "ffhq", "--data", str(data)]
        command += _set(sizes | {"data.workers": 0})
        command += ["--outdir", str(Path(folder) / "runs"), "--batch", str(2 * PER_GPU)]
        command += ["--kimg", f"{4 * PER_GPU / 1000}", "--tick", f"{2 * PER_GPU / 1000}"]
        command += ["--gpus", "2", "--device", setup.device.type]
        yield f"* {_last_line(command)}"
        (stats,) = (Path(folder) / "runs").glob("*/stats.jsonl")
        last = json.loads(stats.read_text().splitlines()[-1])
        yield f"* last tick: {last['kimg'] if 'kimg' in last else sorted(last)[:3]}"


def speed_of_operations(setup: Setup) -> Iterator[str]:
    """Operations against their twins."""
    yield from _table("benchmarks.ops", "--device", setup.device.type, "--repeats", "7")


def speed_of_steps(setup: Setup) -> Iterator[str]:
    """A step at batches of 4 and 32, with kernels and without, and its memory."""
    cfg = "toy" if setup.quick else "ffhq"
    for batch in (4,) if setup.quick else (4, 32):
        settings = {"run.batch": batch, "run.device": setup.device.type}
        chosen = _set(settings | (QUICK if setup.quick else {}))
        repeats = "1" if setup.quick else "3"
        yield from _table("benchmarks.step", "--cfg", cfg, "--twins", "--repeats", repeats, *chosen)
        yield ""


def speed_of_samples(setup: Setup) -> Iterator[str]:
    """Images, views and meshes."""
    options = ["--device", setup.device.type, "--repeats", "1" if setup.quick else "5"]
    if setup.quick:
        options += ["--shape-res", "32", *_set(QUICK)]
    yield from _table("benchmarks.sample", *options)


# The limits, of 25 minutes in all, are estimates for an H100.
STAGES = {
    "environment": Stage("Environment", environment, 120),
    "kernels": Stage("Tests of the kernels", kernels, 120),
    "agreement": Stage("Agreement with the CPU", agreement, 120),
    "training": Stage("Training without a NaN", training, 600),
    "resume": Stage("Resuming", resume, 60),
    "processes": Stage("Two processes", processes, 90),
    "ops": Stage("Speed of operations", speed_of_operations, 60),
    "steps": Stage("Speed and memory of a training step", speed_of_steps, 240),
    "samples": Stage("Speed of samples and shapes", speed_of_samples, 90),
}
QUICK_STAGES = tuple(name for name in STAGES if name != "ops")  # whose sizes are fixed


def _set(settings: dict[str, Any]) -> list[str]:
    """As options of a command line."""
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def _python(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _last_line(arguments: list[str], **variables: str) -> str:
    """What a program of Python says last. Raises UserError where it fails."""
    done = _python(arguments, **variables)
    lines = done.stdout.strip().splitlines() or ["nothing"]
    if done.returncode:
        wrong = [line for line in lines if line.startswith("FAILED")][:5]
        raise UserError("; ".join([*wrong, lines[-1]]))
    return lines[-1]


def _table(module: str, *options: str) -> Iterator[str]:
    """What a benchmark prints, its table kept apart from the text before."""
    done = _python(["-m", module, *options])
    before = ""
    for line in done.stdout.splitlines():
        if line.startswith("|") and not before.startswith("|"):
            yield ""
        yield line
        before = line
    if done.returncode:
        raise UserError(f"{module} failed")


def run_stage(name: str, options: list[str], limit: float) -> tuple[bool, list[str]]:
    """Whether a stage succeeded within seconds, and the lines of its section."""
    stage, start = STAGES[name], time.monotonic()
    command = [sys.executable, "-m", "benchmarks.gpu", "--stage", name, *options]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(limit)
            failure = "" if status == 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            failure = f"took more than {limit:.0f} s"
        output.seek(0)
        lines = [line.rstrip() for line in output]
    took = f"{time.monotonic() - start:.0f} s"
    verdict = f"**FAILED** ({failure}), {took}" if failure else f"passed, {took}"
    return not failure, [f"## {stage.title}", "", f"`{name}`: {verdict}", "", *lines, ""]


@click.command(cls=Command)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--quick", is_flag=True, help="Miniature sizes: seconds on a CPU, no useful figures.")
@click.option("--dest", type=click.Path(dir_okay=False, path_type=Path), help="The report.")
@click.option(
    "--stage", "stages", type=click.Choice(list(STAGES)), multiple=True, help="Only these."
)
def main(device: str, quick: bool, dest: Path | None, stages: tuple[str, ...]) -> None:
    """Check everything on a GPU, time it, and write a report."""
    if dest is None and len(stages) == 1:  # one stage, in this process
        for line in STAGES[stages[0]].run(Setup(select_device(device), quick)):
            click.echo(line)
        return
    if dest is None:
        if device == "cpu" or quick:
            raise UserError("a report of no GPU belongs elsewhere: choose a file with --dest")
        dest = ROOT / "docs" / "performance-gpu.md"
    select_device(device)
    options = ["--device", device, *["--quick"] * quick]
    report = ["# Performance on a GPU" if not quick else "# A rehearsal", ""]
    report += ["Written by `benchmarks/gpu.sh`.", ""]
    failed = []
    for name in stages or (QUICK_STAGES if quick else tuple(STAGES)):
        limit = STAGES[name].limit * (1 if device == "cuda" else 10)
        passed, lines = run_stage(name, options, limit)
        click.echo(lines[2].strip("`"))
        report += lines
        failed += [] if passed else [name]
        with atomic_write(dest) as temporary:
            temporary.write_text("\n".join(report))
    if failed:
        raise UserError(f"{len(failed)} stage(s) failed: {', '.join(failed)}; see {dest}")


if __name__ == "__main__":
    main()
