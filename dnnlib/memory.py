"""How the process deals with main memory."""

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1  # bytes of free memory, the limit above which the heap's end is given back


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next tensor, instead of giving it back.

    By default, glibc returns large blocks and the free end of its heap, and the system clears and
    maps each page anew for the next tensor: 7 % of a toy step, a fifth of a step at the size of
    the paper's faces and of an image's time. What is kept lies in the heap, whose holes cost such
    a step a fifth more memory.

    Returns:
        Whether it did; not without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
