"""How the process deals with main memory."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Bytes. glibc itself raises its threshold up to this size as blocks come and go; holes that larger
# blocks leave in the heap would cost too much memory.
_LARGEST_KEPT = 1 << 25
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next tensor, instead of giving it back.

    By default, glibc returns the free end of its heap, and the system clears and maps each page
    anew for the next tensor. Blocks larger than 32 MB come and go as before. Where there is no
    glibc, nothing happens. Returns whether it did.
    """
    return _set_thresholds(mmap=_LARGEST_KEPT, trim=_NEVER)


@contextlib.contextmanager
def freed_memory_returned() -> Iterator[None]:
    """Within, the C library does as it would by itself; afterwards as `keep_freed_memory`.

    For comparisons in one process.
    """
    if _set_thresholds(mmap=_LARGEST_KEPT, trim=2 * _LARGEST_KEPT):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        yield
    finally:
        keep_freed_memory()


def _set_thresholds(mmap: int, trim: int) -> bool:
    """Bytes from which a block is the system's, and free ones at the end of the heap go back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, mmap) and mallopt(_M_TRIM_THRESHOLD, trim))
