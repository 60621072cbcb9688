"""Time of sampling: an image, further views of the same object, its mesh; A and B in alternation.

    python -m benchmarks.sample [--network FILE] [--json FILE]

The network is that of the paper's faces at 128 px, full capacity, 48 + 48 samples along a ray; its
weights are random, on which times do not depend. Its mesh would be noise: a bumpy ball in planes of
the same size takes its place. `--network` adds the mesh of a trained network's first seed.

Each case is timed beside what it replaces, in turns; medians, and the fastest turn in brackets,
which other work on the machine disturbs least. The bound is what the machine needs
at least for the floating-point operations (of sums and products; exponentials are not counted) and
for the bytes that have to move (weights, planes, results): at the rates of a large sgemm and of a
large copy in the same run.
"""

import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dnnlib import Command
from torch_utils import ops
from training.config import parse_settings
from training.files.network_file import load_network
from training.networks.generator import Generator
from training.networks.layers import FullyConnected
from training.outputs.meshes import (
    PUBLISHED_LEVEL,
    density_grid,
    extract_mesh,
    find_surface,
    surface_level,
)
from training.outputs.objects import Objects
from training.presets import build_config

FACES = {"data.resolution": 128}
TOGETHER = 4  # seeds or views in one call


class Case(NamedTuple):
    """Two ways to the same `count` results, and what each of these takes at least."""

    name: str
    this: Callable[[], Any]
    other_name: str
    other: Callable[[], Any]
    this_count: int
    other_count: int
    flop: float
    bytes: float


class Machine(NamedTuple):
    """Floating-point operations and bytes per second."""

    flop: float
    bytes: float


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_machine(device: torch.device) -> Machine:
    """The best of a few turns."""
    a, b = torch.randn(2, 2048, 2048, device=device)
    source = torch.randn(2**26, device=device)
    target = torch.empty_like(source)
    sgemm = min(seconds(lambda: a @ b) for _ in range(5))
    copy = min(seconds(lambda: target.copy_(source)) for _ in range(5))
    return Machine(2 * 2048**3 / sgemm, 2 * source.nbytes / copy)


def in_plain_torch(run: Callable[[], Any]) -> Callable[[], Any]:
    def twin() -> Any:
        with ops.using("torch"):
            return run()

    return twin


def flop_of(run: Callable[[], Any]) -> int:
    """Of convolutions and matrix products; plain torch shows them to the counter."""
    with FlopCounterMode(display=False) as counter:
        in_plain_torch(run)()
    return counter.get_total_flops()


def views_of(objects: Objects, views: int) -> Callable[[], Tensor]:
    """Images of every object from `views` sides."""
    directions = torch.stack([torch.linspace(-30, 30, views), torch.zeros(views)], dim=1)
    poses = objects.generator.pose_from_degrees(directions)
    return lambda: objects.render(poses).image


def image_cases(generator: Generator) -> list[Case]:
    weights = sum(p.nbytes for p in generator.parameters())

    def images(seeds: Sequence[int]) -> Callable[[], Tensor]:
        return lambda: views_of(Objects.from_seeds(generator, seeds, truncation=0.7), 1)()

    one, together = images([0]), images(range(TOGETHER))
    objects = Objects.from_seeds(generator, [0], truncation=0.7)
    view, views = (views_of(objects, count) for count in (1, TOGETHER))
    planes = objects.planes.nbytes
    upsampling = generator.superresolution or torch.nn.Identity()
    rendering = sum(p.nbytes for p in upsampling.parameters()) + planes
    of_image, of_view = flop_of(one), flop_of(view)
    return [
        Case(
            *("an image", one, "plain torch", in_plain_torch(one), 1, 1),
            *(of_image, weights + planes),
        ),
        Case(
            *(f"an image, {TOGETHER} seeds at a time", together, "one at a time", one),
            *(TOGETHER, 1, of_image, weights / TOGETHER + planes),
        ),
        Case(*("a further view", view, "a whole image", one, 1, 1, of_view, rendering)),
        Case(
            *(f"a further view, {TOGETHER} at a time", views, "one at a time", view),
            *(TOGETHER, 1, of_view, rendering / TOGETHER),
        ),
    ]


def bumpy_ball(generator: Generator) -> tuple[Generator, Tensor]:
    """A network of the same size, and planes [1, 3, C, H, W] that hold a ball with bumps.

    The planes' first channel holds squared distances in their plane, whose sum over three planes is
    2 r^2, and waves; the decoder passes it on, negated.
    """
    config = generator.config
    size = config.generator.plane_resolution
    planes = 0.1 * torch.randn(1, 3, config.generator.plane_channels, size, size)
    texels = (torch.arange(size) + 0.5) / size - 0.5
    squares = texels**2 + 0.004 * torch.cos(2 * math.pi * 5 * texels)
    planes[0, :, 0] = squares + squares[:, None]
    network = Generator(config).eval().requires_grad_(False)
    first, second = (cast(FullyConnected, network.decoder.net[index]) for index in "02")
    for parameter in network.decoder.parameters():
        parameter.zero_()
    first.weight[0, 0] = -60 / first.weight_gain  # 40 - 40 r^2, so large that softplus keeps it
    first.bias[0] = 40
    second.weight[0, 0] = 5 / second.weight_gain
    second.bias[0] = PUBLISHED_LEVEL - 200 * (1 - 0.3**2)  # the level at r = 0.3
    return network, planes


def mesh_case(name: str, generator: Generator, planes: Tensor, resolution: int) -> Case:
    rendering = generator.config.rendering
    level = surface_level(rendering.density_scale)

    def dense() -> None:
        extract_mesh(density_grid(generator, planes, resolution), level, rendering.box_warp)

    surface = find_surface(generator, planes, resolution, level)
    if surface.is_dense or len(surface.mesh.faces) == 0:
        raise click.ClickException(f"{name}: no surface that is found from coarse to fine")
    sizes = generator.config.generator
    # Lookup: 12 texels of each channel. Decoder: to the hidden layer, and to the density alone.
    per_point = 2 * sizes.plane_channels * (12 + sizes.decoder_hidden) + 2 * sizes.decoder_hidden
    evaluations = surface.search.evaluations
    share, faces = evaluations / resolution**3, len(surface.mesh.faces)
    return Case(
        f"mesh at {resolution}^3, {name} ({faces} faces, {share:.1%} of the grid evaluated)",
        lambda: find_surface(generator, planes, resolution, level),
        *("the dense grid", dense, 1, 1, per_point * evaluations),
        planes.nbytes + 16 * evaluations + 24 * faces,
    )


def measure(case: Case, machine: Machine, repeats: int) -> dict[str, Any]:
    """Medians per result over `repeats` turns of each, after one to warm up."""
    case.this(), case.other()
    pairs = [
        (seconds(case.this) / case.this_count, seconds(case.other) / case.other_count)
        for _ in range(repeats)
    ]
    these, others = zip(*pairs, strict=True)
    return {
        "case": case.name,
        "seconds": statistics.median(these),
        "fastest_seconds": min(these),
        "compared_with": case.other_name,
        "compared_seconds": statistics.median(others),
        "ratio": statistics.median(other / this for this, other in pairs),
        "gflop": case.flop / 1e9,
        "megabytes": case.bytes / 1e6,
        "bound_seconds": max(case.flop / machine.flop, case.bytes / machine.bytes),
    }


def row(result: dict[str, Any]) -> str:
    cells = (
        result["case"],
        f"{result['seconds']:.3f} s ({result['fastest_seconds']:.3f} s)",
        f"{result['compared_with']}: {result['compared_seconds']:.3f} s",
        f"{result['ratio']:.1f}x",
        f"{result['gflop']:.1f} GFLOP, {result['megabytes']:.0f} MB",
        f"{result['bound_seconds']:.3f} s",
    )
    return f"| {' | '.join(cells)} |"


@click.command(cls=Command)
@click.option("--network", metavar="FILE", help="Also the mesh of this network's first seed.")
@click.option("--shape-res", default=256, show_default=True, help="Grid points a side of meshes.")
@click.option("--repeats", default=5, type=click.IntRange(1), show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.FIELD=VALUE")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write JSON.")
@torch.no_grad()
def main(
    network: str | None,
    shape_res: int,
    repeats: int,
    device: str,
    settings: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """Time images, views and meshes."""
    torch.manual_seed(0)
    config = build_config("ffhq", FACES | parse_settings(settings))
    generator = Generator(config).eval().requires_grad_(False).to(device)
    machine = measure_machine(torch.device(device))
    description = {
        "machine": f"{platform.processor() or platform.machine()}, {device}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ops": ops.status(device),
        "gflop_per_second": machine.flop / 1e9,
        "gigabytes_per_second": machine.bytes / 1e9,
    }
    click.echo("; ".join(f"{key} {value}" for key, value in description.items()))
    click.echo(
        f"| per result | median (fastest) | against | ratio | work | bound |\n|{' --- |' * 6}"
    )
    cases = image_cases(generator)
    ball, planes = bumpy_ball(generator)
    cases.append(mesh_case("a bumpy ball", ball.to(device), planes.to(device), shape_res))
    if network:
        trained = load_network(network, torch.device(device)).generator
        planes = Objects.from_seeds(trained, [0], truncation=0.7).planes
        cases.append(mesh_case("the network's seed 0", trained, planes, shape_res))
    results = []
    for case in cases:
        results.append(measure(case, machine, repeats))
        click.echo(row(results[-1]))
    if json_path:
        json_path.write_text(json.dumps(description | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
