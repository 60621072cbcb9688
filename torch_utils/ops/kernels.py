"""Which implementation of the operations is in force, and the compiled kernels behind it.

How kernels are compiled and cached: see `neural_renderer.ops.build`.
"""

import contextlib
import ctypes
import functools
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from dnnlib import UserError
from neural_renderer.ops.build import BuildError, Kernels, Mode, parse_mode
from neural_renderer.ops.registration import constant_when_traced

from . import cuda

KERNELS = Kernels(
    "pof3d",
    Path(__file__).parent / "csrc",
    cache_variable="POF3D_CACHE_DIR",
    mode_variable="POF3D_OPS",
    logger=logging.getLogger(__name__),
)

# -w: their warnings are for those who write the kernels
_CPU_OPTIONS = (
    *("-fopenmp", "-w", "-ffp-contract=fast"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
CUDA_OPTIONS = ("--extended-lambda",)
_INSTRUCTION_SETS = {
    "baseline": (),
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
}

_mode: Mode | None = None


def set_mode(mode: str) -> None:
    """Choose the implementation of every operation from now on.

    The environment variable POF3D_OPS sets the mode at the start.

    Args:
        mode: 'torch': plain torch. 'native': compiled kernels where there is one for the device,
            an error when it cannot be built. 'auto': kernels, or plain torch after one warning.

    Raises:
        UserError: for another mode.
    """
    global _mode
    try:
        _mode = parse_mode(mode)
    except ValueError as error:
        raise UserError(f"unknown mode of operations: {error}") from error


def get_mode() -> Mode:
    """The mode in force (see `set_mode`)."""
    if _mode is not None:
        return _mode
    try:
        return KERNELS.mode()
    except ValueError as error:
        raise UserError(f"POF3D_OPS: {error}") from error


@contextlib.contextmanager
def using(mode: str) -> Iterator[None]:
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
    return capability if capability in _INSTRUCTION_SETS else "baseline"


def load(name: str, device: torch.device) -> ctypes.CDLL | None:
    """The library compiled from csrc/NAME.cpp (.cu for a GPU); None means: use plain torch.

    Raises:
        UserError: if the mode is 'native' and it cannot be had.
    """
    if cuda.is_gpu(device):
        source, options = f"{name}.cu", cuda_options(*torch.cuda.get_device_capability(device))
    else:
        source, options = f"{name}.cpp", cpu_options(cpu_capability())
    try:
        return KERNELS.load(source, options, get_mode())
    except BuildError as error:
        raise UserError(f"{error}; install a compiler, or choose the mode auto or torch") from error


@constant_when_traced
def available(name: str, device: torch.device) -> bool:
    """Whether `load` gives a library; may be asked on behalf of tensors without memory.

    Raises:
        UserError: as `load` does.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        return False
    return load(name, device) is not None


@functools.cache
def cpu_options(capability: str) -> tuple[str, ...]:
    """The compiler's options for processors of that capability."""
    return (*_CPU_OPTIONS, *_INSTRUCTION_SETS[capability])


@functools.cache
def cuda_options(major: int, minor: int) -> tuple[str, ...]:
    """The compiler's options for GPUs of that compute capability."""
    return (*CUDA_OPTIONS, f"-arch=sm_{major}{minor}")
