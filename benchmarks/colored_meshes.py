"""Colored meshes against volume renderings: how alike they look, and how long they take.

    python -m benchmarks.colored_meshes --network models/toy.safetensors

For each seed it prints the level that was found, the agreement of silhouettes, and the PSNR inside
the mesh's silhouette from five directions at 64 pixels a side; then, for several ways to color
vertices, the mean and the lowest PSNR; then the CPU seconds of one thread at 256 grid points a
side, medians, which other programs on the machine hardly change.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dnnlib import keep_freed_memory
from training.files.network_file import load_network
from training.outputs.levels import silhouette_level
from training.outputs.mesh_colors import colored, quantized, vertex_normals
from training.outputs.meshes import Mesh, find_surface, point_field
from training.outputs.objects import Objects
from training.outputs.shading import render_mesh

DIRECTIONS = [[0.0, 0.0], [-40.0, 0.0], [40.0, 0.0], [20.0, 20.0], [-20.0, -15.0]]
PIXELS = 64
REPETITIONS = 5


def psnr(objects: Objects, mesh: Mesh) -> list[float]:
    """Of each direction, between the mesh and the volume rendering, in dB, where the mesh covers
    the whole pixel."""
    generator = objects.generator
    cameras = generator.cam2world(generator.pose_from_degrees(torch.tensor(DIRECTIONS)))
    volume = objects.render(cameras, resolution=PIXELS).image[0]
    found = []
    for camera, image in zip(cameras, volume, strict=True):
        rgb, _, alpha = render_mesh(mesh, camera, generator.intrinsics, PIXELS)
        error = (rgb[0] - (image.cpu().clamp(-1, 1) + 1) / 2)[:, alpha[0] > 0.999]
        found.append(-10 * math.log10(error.square().mean()))
    return found


def from_the_field(depth: float) -> Callable[[Objects, Mesh], Mesh]:
    """Colors read off the field at one point, `depth` world units below each vertex."""

    def color(objects: Objects, mesh: Mesh) -> Mesh:
        points: Tensor = torch.from_numpy(mesh.vertices) - depth * vertex_normals(mesh)
        field = point_field(objects.generator, objects.planes, colors=3)
        return mesh._replace(colors=quantized(field(points).color[:, :3].clamp(0, 1)))

    return color


def as_rendered(objects: Objects, mesh: Mesh) -> Mesh:
    """What `pof3d samples` does."""
    return colored(objects.generator, objects.planes, mesh)


WAYS = {
    "field, at the vertex": from_the_field(0),
    "field, 0.01 below": from_the_field(0.01),
    "field, 0.02 below": from_the_field(0.02),
    "as rendered": as_rendered,
}


def compare(heads: list[Objects]) -> None:
    """Print PSNR of all ways."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for head in heads:
        level, agreement = silhouette_level(head.generator, head.planes)
        mesh = find_surface(head.generator, head.planes, 128, level).mesh
        for way, color in WAYS.items():
            found[way] += psnr(head, color(head, mesh))
        views = " ".join(f"{value:.1f}" for value in found["as rendered"][-len(DIRECTIONS) :])
        print(f"level {level:.2f}, agreement {agreement:.3f}, PSNR {views}")
    for way, values in found.items():
        print(f"{way:22} mean {statistics.mean(values):.1f}, lowest {min(values):.1f} dB")


def measure(head: Objects) -> None:
    """Print median CPU seconds of one thread."""
    torch.set_num_threads(1)
    generator, planes = head.generator, head.planes
    times: dict[str, list[float]] = {"level": [], "surface": [], "colors": []}
    for _ in range(REPETITIONS):
        start = time.process_time()
        level = silhouette_level(generator, planes).level
        times["level"].append(time.process_time() - start)
        start = time.process_time()
        mesh = find_surface(generator, planes, 256, level).mesh
        times["surface"].append(time.process_time() - start)
        start = time.process_time()
        colored(generator, planes, mesh)
        times["colors"].append(time.process_time() - start)
    medians = ", ".join(f"{part} {statistics.median(taken):.2f}" for part, taken in times.items())
    print(f"256^3, {len(mesh.vertices)} vertices: {medians} s")


@torch.no_grad()
def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", type=Path, default=Path("models/toy.safetensors"))
    parser.add_argument("--seeds", type=int, default=6, help="how many")
    options = parser.parse_args()
    keep_freed_memory()  # as all commands do
    generator = load_network(options.network).generator
    heads = Objects.from_seeds(generator, range(options.seeds), truncation=0.7).split()
    compare(heads)
    measure(heads[0])


if __name__ == "__main__":
    main()
