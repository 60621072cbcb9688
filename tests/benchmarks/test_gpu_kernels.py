"""The GPU kernels compile for all GPUs since Ampere, and stay within what these have."""

import shutil

import pytest
from click.testing import CliRunner

from benchmarks.gpu_kernels import ARCHITECTURES, PAPER_DECODER, main, resources, sources
from torch_utils.ops import kernels
from torch_utils.ops.triplane_render import GPU_SHARED_BYTES, gpu_shared_bytes

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")

# Registers of a thread, over all architectures, with some room for other compilers.
MOST_REGISTERS = {"bias_act": 48, "upfirdn2d": 64, "triplane_render": 184, "rasterize": 184}
THREADS = {"bias_act": 256, "upfirdn2d": 256, "triplane_render": 64, "rasterize": 256}
REGISTERS_OF_A_PROCESSOR = 65536


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("source, options", sources(), ids=lambda x: getattr(x, "name", ""))
def test_kernels_stay_within_bounds(source, options):
    found = resources(source, options)
    assert {int(r.architecture) for r in found} == set(ARCHITECTURES)
    assert len({r.kernel for r in found}) == len(found) / len(ARCHITECTURES) > 1
    for kernel in found:
        assert kernel.registers <= MOST_REGISTERS[source.stem], kernel
        assert kernel.registers * THREADS[source.stem] <= REGISTERS_OF_A_PROCESSOR, kernel
        assert kernel.spills == 0, kernel
        assert kernel.stack <= 64, kernel
        assert kernel.shared == 0, kernel  # all of it is asked for at the launch


@needs_nvcc
@pytest.mark.parametrize("name", ["bias_act", "upfirdn2d", "triplane_render"])
def test_kernels_are_built_without_warnings(name, tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path))
    options = (*kernels.cuda_options(9, 0), "-Werror", "all-warnings")
    assert kernels.KERNELS.build(f"{name}.cu", options).stat().st_size > 10_000


def test_the_papers_decoder_fits_into_shared_memory():
    """In more than the 48 KiB that no GPU needs to be asked for."""
    assert 48 * 1024 < gpu_shared_bytes(**PAPER_DECODER) <= GPU_SHARED_BYTES
    assert gpu_shared_bytes(channels=16, hidden=64, colors=32) == 4 * (
        64 * 16 + 64 + 33 * 64 + 33 + 64 * (16 + 33 + 2 * 64)
    )


def test_without_a_compiler_there_is_one_line(monkeypatch):
    monkeypatch.setenv("NVCC", "no-such-compiler")
    result = CliRunner().invoke(main, [])
    assert result.exit_code != 0
    assert "no-such-compiler" in result.output + str(result.exception)
