"""CUDA sources, compiled for the host: see include/cuda_on_host.h."""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

_INCLUDE = Path(__file__).with_name("include")
_LAUNCH = re.compile(r"(\w+(?:<[^<>;]*>)?)\s*<<<(.*?)>>>\s*\(", re.DOTALL)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(\w+)\s+(\w+)\[\];")
_STATIC = re.compile(r"__shared__\s+(\w+)\s+(\w+)((?:\[[^\]]+\])*);")

THREADS = ("-DCUDA_ON_HOST_THREADS",)
ADDRESS_AND_UNDEFINED = (
    *THREADS,
    *("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
RACES = (*THREADS, "-g", "-fsanitize=thread")


def rewrite(text: str) -> str:
    """Turn launches and shared memory into calls of cuda_on_host.h; line numbers stay."""
    text = _DYNAMIC.sub(r"\1* \2 = ::cuda_on_host::dynamic_shared<\1>();", text)
    text = _STATIC.sub(r"\1 (&\2)\3 = ::cuda_on_host::static_shared<\1 \3>(__LINE__);", text)
    done = ""
    while found := _LAUNCH.search(text):
        kernel, place = found.groups()
        end = _closing(text, found.end())
        # Of a template whose arguments are deduced there is no address.
        key = f"(const void*){kernel}" if "<" in kernel else "nullptr"
        call = f"{kernel}({text[found.end() : end]})"
        done += text[: found.start()]
        done += f"::cuda_on_host::launch({key}, [&] {{ {call}; }}, {place})"
        text = text[end + 1 :]
    return done + text


def _closing(text: str, start: int) -> int:
    """Where the parenthesis closes that opened before `start`."""
    depth = 1
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError("a launch without an end")


def compile_for_host(
    source: Path,
    folder: Path,
    options: Sequence[str] = (),
    change: Callable[[str], str] = lambda text: text,
) -> Path:
    """Compile a .cu file for the host.

    Args:
        source: the file, with its headers beside it.
        folder: gets copies of the sources, and the library.
        options: of the compiler, such as `RACES`.
        change: applied to the text of every source first.
    """
    for file in source.parent.iterdir():
        (folder / file.name).write_text(rewrite(change(file.read_text())))
    library = folder / f"{source.stem}.so"
    standard = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-pthread"]
    included = [f"-I{_INCLUDE}", "-include", "cuda_on_host.h", "-x", "c++"]
    command = ["g++", *standard, *options, *included, str(folder / source.name)]
    subprocess.run([*command, "-o", str(library)], check=True)
    return library
