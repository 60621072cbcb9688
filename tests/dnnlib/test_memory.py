"""Freed memory stays in the process."""

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS_OF_TENSORS = """
import resource, torch
from dnnlib import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
for _ in range(20):
    torch.ones({size})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones({size})
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
@pytest.mark.parametrize("size", [1 << 21, 1 << 25])
def test_pages_are_not_mapped_anew_for_each_tensor(size):
    root = Path(__file__).parents[2]
    scripts = [FAULTS_OF_TENSORS.format(keep=keep, size=size) for keep in (True, False)]
    faults = [
        int(subprocess.check_output([sys.executable, "-c", script], cwd=root, text=True))
        for script in scripts
    ]
    assert faults[0] < 200 and faults[0] <= faults[1]
