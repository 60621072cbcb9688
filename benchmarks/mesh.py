"""Time neural_renderer's native op against its torch reference, in alternation.

    python -m benchmarks.mesh --json mesh.json

prints a table of medians and of the median ratio torch / native, and writes the same as JSON.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from neural_renderer import Renderer, get_points_from_angles


def torus(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """A closed mesh of 2 x rows x columns faces: vertices [1, V, 3], faces [1, F, 3]."""
    u = torch.arange(rows)[:, None] * (2 * math.pi / rows)
    v = torch.arange(columns)[None] * (2 * math.pi / columns)
    radius = 0.7 + 0.35 * v.cos()
    points = torch.stack(
        (radius * u.cos(), radius * u.sin(), (0.35 * v.sin()).expand(rows, -1)), -1
    )
    a = torch.arange(rows * columns).view(rows, columns)
    b, c, d = a.roll(-1, 1), a.roll(-1, 0), a.roll((-1, -1), (0, 1))
    return points.view(1, -1, 3), torch.stack((a, b, c, b, d, c), -1).view(1, -1, 3)


def forward_and_backward(ops: str) -> Callable[[], None]:
    """Colors, depth and alpha of a batch of 4, and the gradients of vertices and textures."""
    vertices, faces = (x.repeat(4, 1, 1) for x in torus(50, 25))
    vertices.requires_grad_()
    textures = torch.rand(*faces.shape[:2], 4, 4, 4, 3, requires_grad=True)
    renderer = Renderer(256, camera_mode="look_at", ops=ops)
    renderer.eye = get_points_from_angles(2.7, 20, 30)

    def step() -> None:
        rgb, depth, alpha = renderer(vertices, faces, textures)
        loss = ((rgb - 0.3) ** 2).mean() + depth.mean() + ((alpha - 0.5) ** 2).mean()
        torch.autograd.grad(loss, (vertices, textures))

    return step


def large_forward(ops: str) -> Callable[[], None]:
    """Colors, depth and alpha of a mesh of 100 k faces, each of the size of a few pixels."""
    vertices, faces = torus(316, 158)
    textures = torch.rand(*faces.shape[:2], 2, 2, 2, 3)
    renderer = Renderer(512, camera_mode="look_at", ops=ops)
    renderer.eye = get_points_from_angles(2.7, 20, 30)

    @torch.no_grad()
    def step() -> None:
        renderer(vertices, faces, textures)

    return step


CASES = {
    "2 500 faces, batch 4, 256 px, forward + backward": forward_and_backward,
    "99 856 faces, batch 1, 512 px, forward": large_forward,
}


def seconds(step: Callable[[], None]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure(case: Callable[[str], Callable[[], None]], repeats: int) -> dict[str, float]:
    """Medians over `repeats` pairs of runs, after one pair to warm up."""
    native, reference = case("native"), case("torch")
    pairs = [(seconds(native), seconds(reference)) for _ in range(repeats + 1)][1:]
    native_times, torch_times = zip(*pairs, strict=True)
    return {
        "native_s": statistics.median(native_times),
        "torch_s": statistics.median(torch_times),
        "ratio": statistics.median(slow / fast for fast, slow in pairs),
    }


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description="Time neural_renderer's native op.")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of runs (default: 7)")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    arguments = parser.parse_args()

    results = {}
    print(f"| case | native | torch | torch / native |\n|{' --- |' * 4}")
    for name, case in CASES.items():
        result = results[name] = measure(case, arguments.repeats)
        print(
            f"| {name} | {result['native_s']:.3f} s | {result['torch_s']:.2f} s "
            f"| {result['ratio']:.0f} x |",
            flush=True,
        )
    if arguments.json:
        machine = {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processor": platform.machine(),
        }
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2))


if __name__ == "__main__":
    main()
