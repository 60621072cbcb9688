"""Out of memory, on any device, as one line that says what to make smaller."""

import contextlib
from collections.abc import Iterator

from dnnlib import OutOfMemory, out_of_memory


@contextlib.contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn running out of memory into a `UserError` that names the size and the remedy.

    Args:
        remedy: what lowers the need, as 'lower --batch (now 4)'.

    Raises:
        OutOfMemory: for every exception of Python, NumPy or PyTorch that says so.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        lack = out_of_memory(error)
        if lack is None:
            raise
        raise OutOfMemory(f"{lack}: {remedy}") from error
