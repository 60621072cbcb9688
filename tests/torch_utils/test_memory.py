"""Freed memory stays with the process."""

import platform
import resource
import subprocess
import sys

import pytest

# Page faults of one large tensor after another, once the heap has found its size.
COUNT_FAULTS = """
import resource, torch
from torch_utils.memory import keep_freed_memory
if {keep}: assert keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30): torch.ones(1 << 23)
before = faults()
for _ in range(10): torch.ones(1 << 23)
print(faults() - before)
"""


def _faults(keep: bool) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_tensor_takes_the_place_of_the_last_one():
    pages = 10 * (4 << 23) // resource.getpagesize()
    assert _faults(keep=True) < 0.2 * pages
    assert _faults(keep=False) > 0.9 * pages
