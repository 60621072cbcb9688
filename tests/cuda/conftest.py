"""A GPU that is not there: kernels compiled for the host take tensors of the CPU.

The environment chooses how they are compiled, for those who run these tests in a process of its
own: CUDA_ON_HOST = 'races' or 'address' for the sanitizers, 'device' for no pretence: tests run on
the GPU. CUDA_ON_HOST_BARRIER_LEFT_OUT = number of the __syncthreads to remove from each source.
"""

import contextlib
import ctypes
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from neural_renderer.ops import native
from tests.cuda import on_host
from torch_utils.ops import cuda, kernels

_OPTIONS = {"races": on_host.RACES, "address": on_host.ADDRESS_AND_UNDEFINED, "": ()}
_SOURCES = {
    path.stem: path
    for package in (kernels.KERNELS, native.KERNELS)
    for path in package.sources.glob("*.cu")
}


def _change(text: str) -> str:
    """Small blocks and at most 3 of them, so that small tensors take all loops of the kernels."""
    if left_out := os.environ.get("CUDA_ON_HOST_BARRIER_LEFT_OUT"):
        text = without_barrier(text, int(left_out))
    return text.replace("65536", "3").replace("kThreads = 256", "kThreads = 32")


def without_barrier(text: str, number: int) -> str:
    parts = text.split("__syncthreads();")
    if not 0 <= number < len(parts) - 1:
        return text
    both = parts[number] + parts[number + 1]
    return "__syncthreads();".join([*parts[:number], both, *parts[number + 2 :]])


def load(
    name: str,
    folder: Path,
    options: tuple[str, ...] = (),
    change: Callable[[str], str] = _change,
) -> ctypes.CDLL:
    return ctypes.CDLL(str(on_host.compile_for_host(_SOURCES[name], folder, options, change)))


@pytest.fixture(scope="session")
def host_library(tmp_path_factory) -> Callable[[str], ctypes.CDLL]:
    """The library of a source, compiled when it is first asked for."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    options = _OPTIONS[os.environ.get("CUDA_ON_HOST", "")]
    return functools.cache(lambda name: load(name, tmp_path_factory.mktemp(name), options))


@pytest.fixture
def gpu(host_library, monkeypatch) -> Iterator[dict[str, ctypes.CDLL | None]]:
    """Every operation runs its GPU kernel, into memory that holds NaN before.

    What a test puts into the dictionary takes the place of the library of that name.
    """
    others: dict[str, ctypes.CDLL | None] = {}
    how = os.environ.get("CUDA_ON_HOST", "")
    own_load = kernels.load

    def load_kernels(name: str, device: torch.device) -> ctypes.CDLL | None:
        if name in others:
            return others[name]
        return own_load(name, device) if how == "device" else host_library(name)

    monkeypatch.setattr(kernels, "load", load_kernels)
    if how == "device":
        torch.set_default_device("cuda")
    else:
        pretend(host_library, monkeypatch)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills new memory with NaN
    yield others
    torch.use_deterministic_algorithms(False)
    torch.set_default_device(None)


def pretend(host_library: Callable[[str], ctypes.CDLL], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks for the GPU's kernels gets those of the host."""
    monkeypatch.setattr(cuda, "is_gpu", lambda device: True)
    monkeypatch.setattr(cuda, "processors", lambda device: 1)
    monkeypatch.setattr(native, "library", lambda device, mode: host_library("rasterize"))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    stream = SimpleNamespace(cuda_stream=None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
