"""Errors that the user can mend."""

import math
import re

_SIZE_ASKED_FOR = re.compile(
    r"(?:tried to allocate|unable to allocate) ([\d.]+) ?(bytes|[KMGTPE]i?B)", re.IGNORECASE
)
# As PyTorch's allocators, its libraries for CUDA, and the system word it.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory"
    r"|STATUS_ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)


class UserError(Exception):
    """Bad input. The message is one line that says what is wrong and how to mend it.

    Command lines print it and exit with status 1 (see `dnnlib.cli`); library users catch it.
    """


class OutOfMemory(UserError):
    """More memory was asked for than there is."""


def first_line(error: BaseException) -> str:
    """Of what an error says, or else its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """The one line that stands for an allocation that failed, in main memory or on a GPU.

    Args:
        error: from Python, NumPy, PyTorch or the system.

    Returns:
        None where `error` is something else.
    """
    if isinstance(error, OutOfMemory):
        return error
    text = str(error)
    is_one = isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and _OUT_OF_MEMORY.search(text)
    )
    if not is_one:
        return None
    place = "CUDA memory" if re.search("cuda|cublas|cudnn|cusolver", text, re.I) else "memory"
    asked = _SIZE_ASKED_FOR.search(text)
    size = "" if asked is None else f" ({_readable(asked[1], asked[2])} more were asked for)"
    return OutOfMemory(f"out of {place}{size}")


def _readable(number: str, unit: str) -> str:
    """'400000000000', 'bytes' -> '372.5 GiB'."""
    if unit.lower() != "bytes":
        return f"{number} {unit}"
    size = float(number)
    power = min(int(math.log(max(size, 1), 1024)), 4)
    return f"{size / 1024**power:.4g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
