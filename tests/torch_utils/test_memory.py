"""Freed memory stays with the process."""

import platform
import resource
import subprocess
import sys

import pytest

# Page faults of four large tensors at a time, again and again, once the heap has found its size.
COUNT_FAULTS = """
import resource, torch
from torch_utils.memory import freed_memory_returned, keep_freed_memory
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use(times):
    before = faults()
    for _ in range(times): [torch.ones(1 << 22) for _ in range(4)]
    return faults() - before
assert keep_freed_memory()
use(10)
print(use(10))
with freed_memory_returned():
    print(use(10))
use(10)
print(use(10))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_tensors_take_the_place_of_the_last_ones():
    command = [sys.executable, "-c", COUNT_FAULTS]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    pages = 10 * 4 * (4 << 22) // resource.getpagesize()
    kept, returned, kept_again = (int(line) / pages for line in output.split())
    assert kept < 0.02 and kept_again < 0.02
    assert returned > 0.05  # some stay: the heap is only cut off at its end
