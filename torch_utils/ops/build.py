"""Compile the native kernels on first use and load them, or say why not.

The kernels know nothing of torch: they take pointers, sizes and (on a GPU) a stream, through a C
interface. So a build takes a second instead of a minute, and no part of it can disagree with torch.

    sources + compiler + flags --hash--> CACHE/ops/NAME-HASH.so, there already?  load it
                                                                 otherwise       compile, rename

There is no lock to go stale: each process compiles to a private file and renames it into place.
Processes that start together compile the same thing, and the last rename wins.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import torch

from dnnlib import UserError, atomic_write, cache_dir

Mode = Literal["auto", "torch", "native"]

SOURCES = Path(__file__).parent / "csrc"
TIME_LIMIT = 600  # seconds for one compiler run
CPU_FLAGS = {
    "all": (
        *("-std=c++17", "-O3", "-fopenmp", "-shared", "-fPIC", "-w"),
        *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    ),
    "baseline": (),
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
}
CUDA_FLAGS = ("-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", "--extended-lambda")

_log = logging.getLogger(__name__)
_mode: Mode | None = None


class BuildError(Exception):
    """A kernel could not be compiled or loaded; the message is one line."""


def set_mode(mode: Mode) -> None:
    """Choose the implementation of every operation from now on.

    'torch': plain torch. 'native': compiled kernels where there is one for the device; raises
    UserError when it cannot be built. 'auto': kernels, or plain torch after one warning.
    The environment variable POF3D_OPS sets the mode at the start. Raises UserError for others.
    """
    global _mode
    if mode not in get_args(Mode):
        raise UserError(f"unknown mode of operations '{mode}': choose auto, torch or native")
    _mode = mode


def get_mode() -> Mode:
    """The mode in force (see `set_mode`)."""
    if _mode is None:
        set_mode(os.environ.get("POF3D_OPS", "auto"))
    return _mode


@contextlib.contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Within, that mode; afterwards the one before."""
    before = get_mode()
    set_mode(mode)
    try:
        yield
    finally:
        set_mode(before)


def cpu_capability() -> str:
    """The instruction set that kernels use: 'AVX512', 'AVX2' or 'baseline'.

    Torch detects it; its variable ATEN_CPU_CAPABILITY (default, avx2, avx512) lowers it.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability in CPU_FLAGS else "baseline"


def load(name: str, device: torch.device) -> ctypes.CDLL | None:
    """The library compiled from csrc/NAME.cpp (.cu for a GPU); None means: use plain torch."""
    if device.type == "cuda":
        return _load(name, f"{name}.cu", cuda_command(*torch.cuda.get_device_capability(device)))
    return _load(name, f"{name}.cpp", cpu_command(cpu_capability()))


def cpu_command(capability: str) -> tuple[str, ...]:
    """The compiler and its options for processors with that capability."""
    compiler = os.environ.get("CXX", "g++")
    return (compiler, *CPU_FLAGS["all"], *CPU_FLAGS[capability])


def cuda_command(major: int, minor: int) -> tuple[str, ...]:
    """The compiler and its options for GPUs of that compute capability."""
    return (os.environ.get("NVCC", "nvcc"), *CUDA_FLAGS, f"-arch=sm_{major}{minor}")


def _load(name: str, source: str, command: tuple[str, ...]) -> ctypes.CDLL | None:
    mode = get_mode()
    if mode == "torch":
        return None
    library, failure = _build_once(name, source, command)
    if failure and mode == "native":
        raise UserError(f"{failure}; install a compiler, or choose the mode auto or torch")
    return library


@functools.cache
def _build_once(
    name: str, source: str, command: tuple[str, ...]
) -> tuple[ctypes.CDLL | None, str | None]:
    try:
        return ctypes.CDLL(str(build(name, source, command))), None
    except (BuildError, UserError, OSError) as error:
        failure = f"cannot build the native {name} ({error})"
        if get_mode() == "auto":
            _log.warning("%s: plain torch takes its place", failure)
        return None, failure


def build(name: str, source: str, command: tuple[str, ...]) -> Path:
    """Path of the library that `command` makes of csrc/SOURCE, compiled unless it is cached.

    Raises BuildError with a line that names the cause.
    """
    executable = shutil.which(command[0])
    if executable is None:
        raise BuildError(f"no compiler '{command[0]}' found")
    target = cache_dir("ops") / f"{name}-{_key(executable, command)}.so"
    if not target.exists():
        with atomic_write(target) as output:
            _compile([executable, *command[1:], str(SOURCES / source), "-o", str(output)])
    return target


def _key(executable: str, command: tuple[str, ...]) -> str:
    """Names what the binary depends on: compiler, flags, processor, torch, CUDA and the sources."""
    version = subprocess.run([executable, "--version"], capture_output=True, timeout=60).stdout
    environment = (command, platform.machine(), torch.__version__, torch.version.cuda)
    digest = hashlib.sha256(repr(environment).encode() + version)
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command: list[str]) -> None:
    """Run a compiler in a process group of its own, so that a time-out ends its children too."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        raise BuildError(f"the compiler took more than {TIME_LIMIT} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        errors = [line for line in output.splitlines() if "error" in line] or output.splitlines()
        reason = errors[0].strip() if errors else f"exit status {process.returncode}"
        raise BuildError(f"the compiler says: {reason}")
