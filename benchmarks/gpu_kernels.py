"""What each GPU kernel needs: registers, spills, stack, shared memory. No GPU is needed.

    python -m benchmarks.gpu_kernels [--arch 90] [--json FILE]

compiles the kernels and prints what the compiler says of them, for GPUs of compute capability 8.0
(A100), 9.0 (H100), 10.0 (B200) and 12.0 (RTX 50) unless --arch names others. A kernel that spills
registers, or needs a stack, waits for memory that it should not need.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from dnnlib import Command, UserError
from neural_renderer.ops import native
from neural_renderer.ops.build import BuildError, nvcc
from torch_utils.ops import kernels
from torch_utils.ops.triplane_render import GPU_SHARED_BYTES, gpu_shared_bytes

ARCHITECTURES = (80, 90, 100, 120)
PAPER_DECODER = {"channels": 32, "hidden": 64, "colors": 32}

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


class Resources(NamedTuple):
    """Of one kernel, per thread; sizes in bytes. shared: static, per block."""

    kernel: str
    architecture: str
    registers: int
    stack: int
    spills: int
    shared: int


def sources() -> list[tuple[Path, Sequence[str]]]:
    """Every GPU source, and the options that it is compiled with beside the architecture."""
    return [
        (source, options)
        for package, options in (
            (kernels.KERNELS, kernels.CUDA_OPTIONS),
            (native.KERNELS, native.CUDA_OPTIONS),
        )
        for source in sorted(package.sources.glob("*.cu"))
    ]


def resources(
    source: Path, options: Sequence[str], architectures: Iterable[int] = ARCHITECTURES
) -> list[Resources]:
    """What the compiler says of the kernels of a source.

    Raises:
        UserError: where it cannot compile them.
    """
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    try:
        command = [*nvcc(), "-std=c++17", "-O3", "-fatbin", "-Xptxas", "-v", *options, *targets]
    except BuildError as error:
        raise UserError(str(error)) from error
    done = subprocess.run(
        [*command, str(source), "-o", "/dev/null"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        reason = next(iter(done.stdout.strip().splitlines()), "no message")
        raise UserError(f"nvcc cannot compile {source.name}: {reason}")
    return list(_parse(done.stdout))


def _parse(text: str) -> Iterable[Resources]:
    name, architecture, stack, spills = "", "", 0, 0
    for line in text.splitlines():
        if found := _ENTRY.search(line):
            name, architecture = found.groups()
        elif found := _STACK.search(line):
            stack, spills = int(found[1]), int(found[2]) + int(found[3])
        elif found := _USED.search(line):
            registers, shared = int(found[1]), int(found[2] or 0)
            yield Resources(readable(name), architecture, registers, stack, spills, shared)


def readable(name: str) -> str:
    """A kernel's name and template arguments, from the name that the compiler gave it."""
    if shutil.which("c++filt"):
        text = subprocess.check_output(["c++filt", name], text=True).strip()
        text = text.removeprefix("void ").replace("(anonymous namespace)::", "")
        return text[: text.index("(")] if "(" in text else text
    return name


def table(found: Iterable[Resources]) -> str:
    """In Markdown: a line for each kernel, over architectures."""
    by_name: dict[str, list[Resources]] = {}
    for each in found:
        by_name.setdefault(each.kernel, []).append(each)
    rows = ["| kernel | registers | stack | spills | static shared |", "|" + " --- |" * 5]
    for name, them in sorted(by_name.items()):
        registers = ", ".join(f"{r.registers} (sm_{r.architecture})" for r in them)
        most = [max(values) for values in zip(*(r[3:] for r in them), strict=True)]
        rows.append(f"| `{name}` | {registers} | {' | '.join(f'{m} B' for m in most)} |")
    return "\n".join(rows)


@click.command(cls=Command)
@click.option("--arch", "architectures", type=int, multiple=True, default=ARCHITECTURES)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write JSON.")
def main(architectures: tuple[int, ...], json_path: Path | None) -> None:
    """Print what each GPU kernel needs."""
    found = []
    for source, options in sources():
        these = resources(source, options, architectures)
        click.echo(f"\n{source.name}\n\n{table(these)}")
        found += these
    needed = gpu_shared_bytes(**PAPER_DECODER)
    click.echo(
        f"\ntriplane_render's gradients take {needed / 1024:.1f} KiB of dynamic shared memory with "
        f"{PAPER_DECODER}, of {GPU_SHARED_BYTES / 1024:.0f} KiB that a block may have"
    )
    if json_path:
        json_path.write_text(json.dumps([each._asdict() for each in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
