"""Out of memory, on any device, as one line that says what to make smaller."""

import contextlib
import re
from collections.abc import Iterator

import torch

from dnnlib import UserError

# What PyTorch says where the main memory ends; on a GPU it has an exception of its own.
_MAIN_MEMORY_ENDS = ("can't allocate memory", "std::bad_alloc", "not enough memory")
_SIZE = re.compile(r"allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)


@contextlib.contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn running out of memory into a `UserError` that names the size and the remedy.

    Args:
        remedy: what lowers the need, as 'lower --batch (now 4)'.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"out of memory{_size(str(error))}: {remedy}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, NumPy or PyTorch says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(x in str(error) for x in _MAIN_MEMORY_ENDS)


def _size(message: str) -> str:
    """' for 4.0 GiB', where the message tells."""
    found = _SIZE.search(message)
    if found is None:
        return ""
    number, unit = found.groups()
    if unit == "bytes":
        return f" for {float(number) / 2**30:.1f} GiB"
    return f" for {number} {unit}"
