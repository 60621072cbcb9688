"""Compile the native op on first use, into a cache that the user's processes share.

The op is plain C functions: it needs neither torch's headers nor its ABI, so that a build takes
seconds and outlives an update of torch. The library's name in the cache holds a hash of the
sources, the command and the compiler's version. It is built in a folder of its own and then moved
to that name, which is atomic: concurrent builds cannot disturb each other, a killed one leaves
nothing that a later one waits for.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

_SOURCES = Path(__file__).parent / "csrc"
_TIMEOUT = 600  # seconds


class Library(NamedTuple):
    """A loaded library, or the problem that stood in its way."""

    handle: ctypes.CDLL | None
    problem: str | None


@functools.cache
def load(target: str) -> Library:
    """The op for 'cpu' or for a CUDA architecture such as 'sm_90', built if need be.

    A failure is warned of once, in one line.
    """
    try:
        return Library(ctypes.CDLL(str(_built(target))), None)
    except _BuildError as error:
        problem = str(error)
    except (OSError, subprocess.SubprocessError) as error:
        problem = f"{type(error).__name__}: {error}".replace("\n", " ")
    warnings.warn(
        f"neural_renderer renders with its slow torch reference on {target}: {problem}",
        RuntimeWarning,
        stacklevel=2,
    )
    return Library(None, problem)


def command(target: str) -> list[str]:
    """The compiler and its options, up to the input and the output."""
    # Fused multiply-adds would take from edge functions the symmetry that keeps meshes tight.
    if target == "cpu":
        compiler = os.environ.get("CXX") or _first("c++", "g++", "clang++")
        options = "-O3 -std=c++17 -fPIC -pthread -fopenmp-simd -ffp-contract=off"
        return [*compiler.split(), *options.split(), "-fno-math-errno", "-fno-trapping-math"]
    if target.startswith("sm_"):
        options = f"-O3 -std=c++17 -fmad=false -arch={target} -Xcompiler -fPIC"
        return [_nvcc(), *options.split()]
    raise _BuildError(f"there is no native op for {target} tensors")


def source(target: str) -> Path:
    """The file to compile for a target."""
    return _SOURCES / ("rasterize.cpp" if target == "cpu" else "rasterize.cu")


class _BuildError(Exception):
    """Says in one line why the op cannot be built."""


def _built(target: str) -> Path:
    compile_ = [*command(target), "-shared", str(source(target))]
    cached = _cache() / f"rasterize-{target}-{_fingerprint(compile_)}.so"
    if cached.exists():
        return cached
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent, prefix="build-") as folder:
        output = Path(folder) / cached.name
        result = subprocess.run(
            [*compile_, "-o", str(output)], capture_output=True, text=True, timeout=_TIMEOUT
        )
        if result.returncode:
            lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
            reason = next((line for line in lines if "error" in line), lines[-1])
            raise _BuildError(f"{compile_[0]} failed: {reason}")
        os.replace(output, cached)
    return cached


def _fingerprint(compile_: list[str]) -> str:
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.read_bytes())
    version = subprocess.run(
        [compile_[0], "--version"], capture_output=True, text=True, timeout=_TIMEOUT
    )
    options = [part for part in compile_ if not part.startswith(str(_SOURCES))]
    digest.update("\0".join([*options, version.stdout, platform.machine()]).encode())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    """NEURAL_RENDERER_CACHE, or neural_renderer/ in the user's cache folder."""
    own = os.environ.get("NEURAL_RENDERER_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neural_renderer"


def _first(*names: str) -> str:
    for name in names:
        if shutil.which(name):
            return name
    raise _BuildError(f"no C++ compiler found ({', '.join(names)}); install one, or set CXX")


def _nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if nvcc is None:
        raise _BuildError("no nvcc found; install the CUDA toolkit, or set CUDA_HOME")
    return nvcc
