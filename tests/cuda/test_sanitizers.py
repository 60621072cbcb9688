"""The tests of the kernels once more, in processes under the sanitizers, with real threads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
]

HERE = Path(__file__).parent
# Of each kernel what differs in what threads do: layouts and types change arithmetic alone.
CHOSEN = (
    "(test_bias_act and float32-c and 0.7)"
    " or (test_bias_act_of_any_shape and (300))"
    " or (test_upfirdn2d and float16-c)"
    " or (test_triplane_render and not wanted and not torch)"
    " or (test_rasterizer and 33 and dtype0)"
)
OPTIONS = {
    "races": {"TSAN_OPTIONS": "halt_on_error=1:exitcode=66:report_bugs=1"},
    "address": {
        "ASAN_OPTIONS": "detect_leaks=0:exitcode=66",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=66",
    },
}


def run(kind: str, chosen: str, **environment: str) -> subprocess.CompletedProcess:
    libraries = {"races": ["libtsan.so"], "address": ["libasan.so", "libubsan.so"]}[kind]
    paths = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in libraries
    ]
    if not all(os.path.isabs(path) for path in paths):
        pytest.skip("this g++ has no sanitizers")
    environment |= OPTIONS[kind] | {"CUDA_ON_HOST": kind, "LD_PRELOAD": " ".join(paths)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONMALLOC": "malloc"}
    tests = [
        "-q",
        "-x",
        "-s",
        "-p",
        "no:cacheprovider",
        "-k",
        chosen,
        str(HERE / "test_kernels.py"),
    ]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *tests],
        env=os.environ | environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("kind", OPTIONS)
def test_kernels_are_clean(kind):
    done = run(kind, CHOSEN)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("barrier", ["0", "1", "2"])
def test_a_missing_barrier_is_a_data_race(barrier):
    done = run(
        "races", "test_triplane_render and texels and full", CUDA_ON_HOST_BARRIER_LEFT_OUT=barrier
    )
    assert "ThreadSanitizer: data race" in done.stderr, (done.stdout + done.stderr)[-3000:]
    assert done.returncode == 66
