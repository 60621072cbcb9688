"""Compile C++ and CUDA kernels on first use and load them, or say why not.

The kernels are plain C functions of pointers and sizes that know nothing of torch. So a build takes
seconds, and its result outlives an update of torch.

    compiler + options + sources --hash--> CACHE/ops/NAME-HASH.so, there already?  load it
                                                                  otherwise        compile, rename

There is no lock to go stale: each process compiles into a folder of its own and renames the result
into place. Processes that start together compile the same thing, and the last rename wins; a killed
one leaves nothing that a later one waits for.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Mode = Literal["auto", "torch", "native"]

_MODES: dict[str, Mode] = {"auto": "auto", "torch": "torch", "native": "native"}

TIME_LIMIT = 600.0  # seconds for one run of a compiler

_COMMON_OPTIONS = ("-std=c++17", "-O3", "-shared")
_CPU_OPTIONS = (*_COMMON_OPTIONS, "-fPIC")
_CUDA_OPTIONS = (*_COMMON_OPTIONS, "-Xcompiler", "-fPIC")


class BuildError(RuntimeError):
    """A kernel cannot be compiled or loaded; the message is one line."""


class Library(NamedTuple):
    """A loaded library, or the problem that stood in its way."""

    handle: ctypes.CDLL | None
    problem: str | None


def parse_mode(text: str) -> Mode:
    """Check the name of a mode.

    'torch' is plain torch, 'native' compiled kernels or an error, 'auto' compiled kernels where
    they can be had, else plain torch after a warning.

    Raises:
        ValueError: for another name.
    """
    if text not in _MODES:
        raise ValueError(f"ops must be 'auto', 'torch' or 'native', not {text!r}")
    return _MODES[text]


class Kernels:
    """The kernels of one package: compiled on first use, each of them once per process.

    Args:
        package: names the folder in the user's cache.
        sources: the folder of the source files; a change of any of them leads to a new build.
        cache_variable: environment variable that names another folder to cache in.
        mode_variable: environment variable that sets the mode.
        logger: gets one line of warning for each library that plain torch must stand in for.
    """

    def __init__(
        self,
        package: str,
        sources: Path,
        *,
        cache_variable: str,
        mode_variable: str,
        logger: logging.Logger,
    ) -> None:
        self.sources = sources
        self._package = package
        self._cache_variable = cache_variable
        self._mode_variable = mode_variable
        self._logger = logger
        self._libraries: dict[tuple[str, tuple[str, ...]], Library] = {}
        self._warned: set[str] = set()

    def mode(self) -> Mode:
        """The mode that the environment sets, 'auto' by default.

        Raises:
            ValueError: if it names none.
        """
        return parse_mode(os.environ.get(self._mode_variable) or "auto")

    def load(self, source: str, options: tuple[str, ...], mode: Mode) -> ctypes.CDLL | None:
        """The library of a source file; None means that plain torch must do the work.

        Args:
            source: name of a .cpp or .cu file in `sources`.
            options: of the compiler, beyond those that make a library.
            mode: see `parse_mode`.

        Raises:
            BuildError: if the mode is 'native' and the library cannot be had.
        """
        if mode == "torch":
            return None
        handle, problem = self.library(source, options)
        if problem is not None:
            if mode == "native":
                raise BuildError(problem)
            if problem not in self._warned:
                self._warned.add(problem)
                self._logger.warning("%s: plain torch takes its place", problem)
        return handle

    def library(self, source: str, options: tuple[str, ...]) -> Library:
        """What came of compiling and loading a source file (see `load`)."""
        key = source, options
        if key not in self._libraries:
            self._libraries[key] = self._open(source, options)
        return self._libraries[key]

    def forget(self) -> None:
        """Begin as a new process would: nothing loaded, nothing warned of."""
        self._libraries.clear()
        self._warned.clear()

    def build(self, source: str, options: Sequence[str]) -> Path:
        """The library's file, compiled unless it is in the cache.

        Raises:
            BuildError: says in one line what stands in the way.
        """
        try:
            return self._build(self.sources / source, options)
        except OSError as error:
            raise BuildError(f"{error.strerror or error}: {error.filename}") from error

    def _open(self, source: str, options: Sequence[str]) -> Library:
        try:
            return Library(ctypes.CDLL(str(self.build(source, options))), None)
        except (BuildError, OSError) as error:
            reason = " ".join(str(error).split())
            return Library(None, f"cannot build the native kernels of {self._package} ({reason})")

    def _build(self, source: Path, options: Sequence[str]) -> Path:
        on_gpu = source.suffix == ".cu"
        compiler = nvcc() if on_gpu else _cxx()
        options = (*(_CUDA_OPTIONS if on_gpu else _CPU_OPTIONS), *options)
        name = f"{source.stem}-{self._key(compiler, options)}.so"
        target = self._cache() / name
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
            output = Path(folder) / name
            _run([*compiler, *options, str(source), "-o", str(output)])
            with open(output, "rb") as file:
                os.fsync(file.fileno())  # else a crash could leave an empty file under this name
            os.replace(output, target)
        return target

    def _key(self, compiler: list[str], options: Sequence[str]) -> str:
        """Names what the binary depends on: compiler, options, processor and sources."""
        digest = hashlib.sha256(repr((compiler, options, platform.machine())).encode())
        digest.update(_run([*compiler, "--version"]).encode())
        for file in sorted(self.sources.iterdir()):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]

    def _cache(self) -> Path:
        """`cache_variable`/ops, else XDG_CACHE_HOME/package/ops, else ~/.cache/package/ops."""
        chosen = os.environ.get(self._cache_variable)
        root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        path = os.path.expanduser(chosen or os.path.join(root, self._package))
        if path.startswith("~"):  # no HOME, and no entry for this user
            raise BuildError(f"there is no home folder to cache it in; set {self._cache_variable}")
        return Path(path) / "ops"


def _cxx() -> list[str]:
    """The command that CXX names, else the first C++ compiler on the path."""
    given = os.environ.get("CXX", "").strip()
    return _command(given) if given else [_first("c++", "g++", "clang++")]


def nvcc() -> list[str]:
    """The command that NVCC names, else nvcc of CUDA_HOME, else that on the path.

    Raises:
        BuildError: where there is none.
    """
    given = os.environ.get("NVCC", "").strip()
    return _command(given) if given else [_cuda_compiler()]


def _cuda_compiler() -> str:
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [os.path.join(home, "bin") for home in homes if home]
    for path in (*folders, None, "/usr/local/cuda/bin"):  # None: the search path
        found = shutil.which("nvcc", path=path)
        if found:
            return found
    raise BuildError("no nvcc found; install the CUDA toolkit, or set NVCC or CUDA_HOME")


def _first(*names: str) -> str:
    for name in names:
        if shutil.which(name):
            return name
    raise BuildError(f"no C++ compiler found ({', '.join(names)}); install one, or set CXX")


def _command(text: str) -> list[str]:
    """A program with its arguments, as in 'ccache g++', or a path that may hold spaces."""
    if shutil.which(text):
        return [text]
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise BuildError(f"cannot read the command {text!r}: {error}") from error
    if shutil.which(command[0]) is None:
        raise BuildError(f"no compiler '{command[0]}' found")
    return command


def _run(command: list[str]) -> str:
    """What a compiler prints; in a process group of its own, so that a time-out ends all of it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took more than {TIME_LIMIT} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        lines = output.strip().splitlines() or [f"exit status {process.returncode}"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise BuildError(f"{command[0]} failed: {reason}")
    return output
