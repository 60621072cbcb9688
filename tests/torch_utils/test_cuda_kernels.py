"""The GPU kernels as far as a machine without a GPU can tell: they compile, and their arithmetic,
compiled for the host, agrees with the twins."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from torch_utils.ops import bias_act, kernels, upfirdn2d
from torch_utils.ops.triplane_render import (
    PLANE_AXES,
    DecoderWeights,
    _describe,
    pack,
    triplane_render_torch,
    unpack,
)
from torch_utils.ops.upfirdn2d import Plan, describe


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    library = tmp_path_factory.mktemp("host") / "host.so"
    source = Path(__file__).with_name("host_kernels.cpp")
    flags = ["-std=c++17", "-O2", "-shared", "-fPIC", f"-I{kernels.KERNELS.sources}"]
    subprocess.run(["g++", *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize("name", ["bias_act", "upfirdn2d", "triplane_render"])
def test_compiles_for_the_gpu(name, capability, tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path))
    library = kernels.KERNELS.build(f"{name}.cu", kernels.cuda_options(*capability))
    assert library.stat().st_size > 0


def _pointers(*tensors):
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("act, alpha", [("lrelu", 0.2), ("relu", 0.0)])
def test_bend_and_its_derivative(host, act, alpha, clamp):
    x = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    expected = bias_act(x, act=act, alpha=alpha, gain=1.3, clamp=clamp)
    gradient = torch.randn_like(x)
    (d_x,) = torch.autograd.grad(expected, x, gradient)
    constants = [ctypes.c_double(v) for v in (alpha, 1.3, torch.inf if clamp is None else clamp)]
    count, y, result = ctypes.c_int64(1000), torch.empty_like(x), torch.empty_like(x)
    host.host_bend(*_pointers(x, y), count, *constants)
    host.host_bend_derivative(*_pointers(gradient, y, result), count, *constants)
    torch.testing.assert_close(y, expected.detach())
    torch.testing.assert_close(result, d_x)


def _host_upfirdn2d(host, x, kernel, plan):
    """What `_launch` of upfirdn2d does, on the host."""
    height, width = plan.output_size(*x.shape[2:], kernel)
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    y = x.new_full((*x.shape[:2], height, width), torch.nan)
    y = y.contiguous(memory_format=torch.channels_last) if last else y
    taps = kernel.flip([0, 1]).contiguous()
    host.host_upfirdn2d(ctypes.byref(describe(x, y, taps, plan)), *_pointers(x, taps, y))
    return y


PLANS = [
    Plan((1, 1), (1, 1), (1, 2, 0, 3)),
    Plan((2, 2), (1, 1), (2, 1, 2, 1)),
    Plan((1, 1), (2, 2), (1, 1, 1, 1)),
    Plan((3, 2), (2, 3), (4, -1, -2, 5)),
    Plan((1, 4), (3, 1), (0, 5, 2, 2)),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_upfirdn2d_and_its_gradient(host, plan, layout):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    kernel = torch.randn(3, 4, dtype=torch.float64)
    expected = upfirdn2d(x, kernel, up=plan.up, down=plan.down, padding=plan.padding)
    torch.testing.assert_close(_host_upfirdn2d(host, x, kernel, plan), expected.detach())
    gradient = torch.randn_like(expected)
    (d_x,) = torch.autograd.grad(expected, x, gradient)
    back = _host_upfirdn2d(host, gradient, kernel.flip([0, 1]), plan.transposed(7, 6, kernel))
    torch.testing.assert_close(back, d_x)


@pytest.mark.parametrize("axes", PLANE_AXES)
def test_triplane_render_and_its_gradients(host, axes):
    batch, count, channels, hidden, colors = 2, 300, 16, 24, 32
    planes = torch.randn(batch, 5, 7, 3, channels).permute(0, 3, 4, 1, 2)
    points = (torch.rand(batch, count, 3) - 0.5) * 1.6
    shapes = ((hidden, channels), (hidden,), (1 + colors, hidden), (1 + colors,))
    decoder = DecoderWeights(*(torch.randn(s) * 0.3 for s in shapes))
    d_sigma, d_color = torch.randn(batch, count, 1), torch.randn(batch, count, colors)

    inputs = [t.double().requires_grad_() for t in (planes, points, *decoder)]
    samples = triplane_render_torch(
        *inputs[:2], DecoderWeights(*inputs[2:]), box_warp=1.1, axes=axes
    )
    seeds = [d_sigma.double(), d_color.double()]
    expected = [*samples, *torch.autograd.grad(list(samples), inputs, seeds)]

    packed = pack(decoder)
    shape = _describe(planes, points, decoder.w1, decoder.w2, 1.1, axes)
    sigma, color = torch.empty_like(d_sigma), torch.empty_like(d_color)
    d_planes, d_points = torch.zeros_like(planes), torch.empty_like(points)
    d_weights = torch.empty_like(packed)
    tensors = (packed, planes, points, sigma, color, d_sigma, d_color)
    host.host_triplane(ctypes.byref(shape), *_pointers(*tensors, d_planes, d_points, d_weights))
    actual = [sigma, color, d_planes, d_points, *unpack(d_weights, shape)]
    for a, e in zip(actual, expected, strict=True):
        assert torch.linalg.vector_norm(a - e) < 1e-5 * torch.linalg.vector_norm(e)
