"""Each fast operation against its twin, taken in alternation in one run.

    python benchmarks/ops.py [--device cuda] [--threads 2] [--repeats 7] [--json FILE]

Prints medians in milliseconds, the ratio twin / native, and what the work amounts to: the
floating-point operations of its sums and products (exponentials not counted; the backward pass
with what it computes again) and the bytes that a forward pass must move at least. `GFLOP/s` beside
that of a large sgemm of the same run says how far from its bound an operation is.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.naive import plain_bias_act, plain_upfirdn2d
from dnnlib import Command
from torch_utils.ops import bias_act, resample_filter, status, triplane_render, upfirdn2d
from torch_utils.ops.triplane_render import DecoderWeights, triplane_render_torch


class Case(NamedTuple):
    """Two functions of the same inputs, and what a forward (backward) pass must do at least."""

    name: str
    native: Callable[..., list[Tensor]]
    twin: Callable[..., list[Tensor]]
    inputs: list[Tensor]
    forward_flop: float
    backward_flop: float
    bytes: float


class Times(NamedTuple):
    """Seconds."""

    forward: float
    backward: float


def ray_points(batch: int, resolution: int, samples: int) -> Tensor:
    """Points along the rays of a camera on the sphere, as training renders them: [B, N, 3]."""
    pixels = (torch.arange(resolution) + 0.5) / resolution - 0.5
    y, x = torch.meshgrid(pixels, pixels, indexing="ij")
    directions = F.normalize(torch.stack([x, y, -torch.full_like(x, 4.26)], -1), dim=-1)
    near, far = 2.25, 3.3
    depths = near + (far - near) * torch.rand(resolution, resolution, samples).sort(-1).values
    points = directions[:, :, None] * depths[..., None] + torch.tensor([0.0, 0.0, 2.7])
    angle = torch.linspace(-0.6, 0.6, batch)
    zero, one = torch.zeros(batch), torch.ones(batch)
    rows = [[angle.cos(), zero, angle.sin()], [zero, one, zero], [-angle.sin(), zero, angle.cos()]]
    rotation = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return torch.einsum("bij,nj->bni", rotation, points.reshape(-1, 3)).contiguous()


def triplane_case(
    batch: int, plane: int, channels: int, hidden: int, resolution: int, samples: int, layout: str
) -> Case:
    planes = torch.randn(batch, 3 * channels, plane, plane)
    if layout == "channels-last":
        planes = planes.contiguous(memory_format=torch.channels_last)
    points = ray_points(batch, resolution, samples)
    shapes = ((hidden, channels), (hidden,), (1 + channels, hidden), (1 + channels,))
    inputs = [planes.unflatten(1, (3, channels)), points, *(torch.randn(s) * 0.2 for s in shapes)]
    count = points[..., 0].numel()
    mlp = 2 * hidden * (2 * channels + 1) * count
    lookup = 2 * 12 * channels * count

    def run(render: Callable) -> Callable[..., list[Tensor]]:
        return lambda planes, points, *weights: list(
            render(planes, points, DecoderWeights(*weights), box_warp=1.0)
        )

    return Case(
        f"triplane_render B={batch} {plane}x{plane}x{channels} hidden {hidden} "
        f"{resolution}^2x{samples} {layout}",
        *(run(triplane_render), run(triplane_render_torch), inputs),
        forward_flop=mlp + lookup,
        backward_flop=2.5 * mlp + 4 * lookup,  # repeats the lookup and the first layer
        bytes=4 * (planes.numel() + points.numel() + count * (1 + channels)),
    )


def bias_act_case(shape: tuple[int, ...], clamp: float | None) -> Case:
    x, bias = torch.randn(shape), torch.randn(shape[1])
    return Case(
        f"bias_act {list(shape)} clamp {clamp}",
        lambda x, bias: [bias_act(x, bias, act="lrelu", clamp=clamp)],
        lambda x, bias: [plain_bias_act(x, bias, act="lrelu", clamp=clamp)],
        [x, bias],
        forward_flop=3 * x.numel(),
        backward_flop=3 * x.numel(),
        bytes=8 * x.numel(),
    )


def upfirdn2d_case(shape: tuple[int, ...], **options) -> Case:
    x, kernel = torch.randn(shape), resample_filter([1, 3, 3, 1])
    up, down = options.get("up", 1), options.get("down", 1)
    outputs = upfirdn2d(x, kernel, **options).numel()
    flop = 2 * 16 * outputs / up**2

    return Case(
        f"upfirdn2d {list(shape)} up {up} down {down}",
        lambda x: [upfirdn2d(x, kernel, **options)],
        lambda x: [plain_upfirdn2d(x, kernel, **options)],
        [x],
        forward_flop=flop,
        backward_flop=flop,
        bytes=4 * (x.numel() + outputs),
    )


def cases() -> list[Case]:
    return [
        *(triplane_case(16, 32, 16, 32, 32, 24, layout) for layout in ("planar", "channels-last")),
        *(triplane_case(4, 256, 32, 64, 64, 48, layout) for layout in ("planar", "channels-last")),
        bias_act_case((4, 256, 128, 128), None),
        bias_act_case((4, 256, 128, 128), 256),
        upfirdn2d_case((4, 256, 129, 129), padding=(1, 1, 1, 1)),
        upfirdn2d_case((4, 96, 128, 128), up=2, padding=(2, 1, 2, 1)),
        upfirdn2d_case((4, 128, 256, 256), down=2, padding=(1, 1, 1, 1)),
    ]


def take(function: Callable[..., list[Tensor]], inputs: list[Tensor]) -> Times:
    inputs = [t.detach().requires_grad_() for t in inputs]
    start = now()
    outputs = function(*inputs)
    middle = now()
    torch.autograd.grad(outputs, inputs, [torch.ones_like(t) for t in outputs])
    return Times(middle - start, now() - middle)


def now() -> float:
    """Seconds, all work done."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(case: Case, repeats: int) -> dict[str, object]:
    times: dict[str, list[Times]] = {"native": [], "twin": []}
    for repeat in range(repeats + 1):
        for kind in times:
            taken = take(getattr(case, kind), case.inputs)
            if repeat > 0:  # the first warms up
                times[kind].append(taken)
    median = {
        kind: Times(*(statistics.median(values) for values in zip(*taken, strict=True)))
        for kind, taken in times.items()
    }
    native, twin = median["native"], median["twin"]
    return {
        "case": case.name,
        "forward_ms": 1e3 * native.forward,
        "forward_ratio": twin.forward / native.forward,
        "backward_ms": 1e3 * native.backward,
        "backward_ratio": twin.backward / native.backward,
        "ratio": sum(twin) / sum(native),
        "gflop": (case.forward_flop + case.backward_flop) / 1e9,
        "gflop_per_s": (case.forward_flop + case.backward_flop) / 1e9 / sum(native),
        "forward_megabytes": case.bytes / 1e6,
    }


def sgemm_gflop_per_s(size: int = 1024) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(9):
        start = now()
        a @ b
        seconds.append(now() - start)
    return 2 * size**3 / statistics.median(seconds) / 1e9


@click.command(cls=Command)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="[default: torch's]")
@click.option("--repeats", default=7, type=click.IntRange(1), show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False), help="write the numbers there"
)
def main(device: str, threads: int | None, repeats: int, json_file: str | None) -> None:
    """Time every operation against its plain torch twin."""
    torch.set_default_device(device)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    bound = sgemm_gflop_per_s()
    click.echo(f"{status(device)}; {torch.get_num_threads()} threads; sgemm {bound:.0f} GFLOP/s")
    header = (
        "| operation | forward ms | x | backward ms | x | both x | GFLOP | GFLOP/s | forward MB |"
    )
    click.echo(f"{header}\n|{' --- |' * 9}")
    rows = []
    for case in cases():
        row = measure(case, repeats)
        rows.append(row)
        numbers = " | ".join(f"{v:.1f}" for v in list(row.values())[1:])
        click.echo(f"| {row['case']} | {numbers} |")
    if json_file:
        Path(json_file).write_text(
            json.dumps(
                {"status": status(device), "sgemm_gflop_per_s": bound, "rows": rows}, indent=1
            )
        )


if __name__ == "__main__":
    main()
