"""How the process deals with main memory."""

import ctypes
import sys

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
    anew for the next tensor: 7 % of a toy step, a fifth of an image's time. Blocks larger than 32
    MB come and go as before.

    Returns:
        Whether it did; not without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
