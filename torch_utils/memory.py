"""How the process deals with main memory."""

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_KEPT = 1 << 26  # bytes; holes in the heap left by larger blocks cost too much memory


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next tensor, instead of giving it back.

    By default, glibc asks the system for every large block and returns it at once, and the system
    clears and maps each of its pages anew: for large tensors on the CPU that takes longer than
    most operations on them. Where there is no glibc, nothing happens. Returns whether it did.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    never_trim = 2**31 - 1
    kept = mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    return bool(kept and mallopt(_M_TRIM_THRESHOLD, never_trim))
