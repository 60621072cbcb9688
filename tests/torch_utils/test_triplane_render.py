"""The fused tri-plane kernel against its torch twin in float64, over sizes, layouts and hazards."""

import json
import os
import subprocess
import sys

import pytest
import torch

from torch_utils.ops import kernels, set_mode, triplane_render
from torch_utils.ops.triplane_render import (
    PLANE_AXES,
    DecoderWeights,
    as_texels,
    native_library,
    triplane_render_torch,
)

# batch, points, channels, height, width, hidden, colors
SIZES = [
    (1, 1, 1, 1, 1, 1, 1),
    (1, 1, 16, 4, 4, 32, 16),
    (2, 31, 3, 5, 7, 5, 3),
    (3, 33, 20, 9, 4, 19, 6),
    (2, 300, 16, 32, 32, 32, 16),
    (1, 1000, 32, 17, 64, 64, 32),
    (2, 65, 48, 8, 8, 70, 40),
]


@pytest.fixture(autouse=True)
def native_mode():
    if native_library(torch.device("cpu")) is None:
        pytest.skip("the kernel cannot be built here")
    set_mode("native")
    yield
    set_mode("auto")


def _inputs(size, dtype=torch.float64, spread=1.4, seed=0):
    """Planes, points (some outside the box) and decoder weights, each requiring gradient."""
    batch, count, channels, height, width, hidden, colors = size
    random = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return torch.randn(*shape, generator=random, dtype=torch.float64) * scale

    tensors = [
        normal(batch, 3, channels, height, width),
        (torch.rand(batch, count, 3, generator=random, dtype=torch.float64) - 0.5) * spread,
        normal(hidden, channels, scale=channels**-0.5),
        normal(hidden),
        normal(1 + colors, hidden, scale=hidden**-0.5),
        normal(1 + colors),
    ]
    # Rounded to float32, so that both precisions start from the same numbers.
    return [t.float().to(dtype).requires_grad_() for t in tensors]


def _run(render, inputs, axes="full", box_warp=1.0, weight_of_points=None):
    """Outputs and the gradients of a random functional of them; a factor [B, N, 1] is optional."""
    samples = render(
        inputs[0], inputs[1], DecoderWeights(*inputs[2:]), box_warp=box_warp, axes=axes
    )
    random = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=random).to(t.dtype) for t in samples]
    if weight_of_points is not None:
        weights = [w * weight_of_points.to(w.dtype) for w in weights]
    wanted = [t for t in inputs if t.requires_grad]
    return [*samples, *torch.autograd.grad(list(samples), wanted, weights)]


def _error(actual, expected):
    difference = torch.linalg.vector_norm(actual.double() - expected)
    return (difference / torch.linalg.vector_norm(expected).clamp_min(1e-12)).item()


@pytest.mark.parametrize("axes", PLANE_AXES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_agrees_with_the_twin_in_float64(size, axes):
    actual = _run(triplane_render, _inputs(size, torch.float32), axes)
    expected = _run(triplane_render_torch, _inputs(size), axes)
    errors = [_error(a, e) for a, e in zip(actual, expected, strict=True)]
    assert max(errors) < 5e-6, errors


def _weights_of_points(size, seed=2):
    """From 1 down to 1e-14, as those of surfaces and of empty space, in no order; the second batch
    element's are smaller by 1e-8."""
    random = torch.Generator().manual_seed(seed)
    exponents = torch.rand(*size[:2], 1, generator=random, dtype=torch.float64) * -14
    exponents[1:] -= 8
    return 10**exponents


@pytest.mark.parametrize("size", SIZES[2:], ids=str)
def test_points_with_negligible_gradients_change_nothing_that_float32_shows(size):
    weights = _weights_of_points(size)
    actual = _run(triplane_render, _inputs(size, torch.float32), weight_of_points=weights)
    expected = _run(triplane_render_torch, _inputs(size), weight_of_points=weights)
    errors = [_error(a, e) for a, e in zip(actual, expected, strict=True)]
    errors += [_error(actual[i][-1], expected[i][-1]) for i in (2, 3)]  # a batch element by itself
    assert max(errors) < 5e-6, errors
    d_points = actual[3][0][weights[0, :, 0] < 1e-10 * weights.max()]
    assert len(d_points) and not d_points.any()  # they were left out, and their places filled


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_not_lost(value):
    size = (2, 300, 16, 32, 32, 32, 16)
    weights = torch.full((*size[:2], 1), 1e-9)
    weights[1, 77] = value
    gradients = _run(triplane_render, _inputs(size, torch.float32), weight_of_points=weights)[2:]
    assert all(not g.isfinite().all() for g in gradients)
    assert gradients[1][0].isfinite().all() and gradients[1][0].any()


def test_twin_has_the_gradients_that_finite_differences_show():
    inputs = _inputs((2, 5, 3, 4, 6, 4, 2))

    def function(planes, points, *weights):
        return tuple(triplane_render_torch(planes, points, DecoderWeights(*weights), box_warp=1.3))

    assert torch.autograd.gradcheck(function, inputs)


def test_memory_layout_of_the_planes_does_not_matter():
    inputs = _inputs((2, 200, 16, 8, 12, 32, 16), torch.float32)
    expected = _run(triplane_render, inputs)
    image = inputs[0].detach().flatten(1, 2).to(memory_format=torch.channels_last)
    layouts = [
        image.unflatten(1, (3, 16)),
        inputs[0].detach().transpose(3, 4).contiguous().transpose(3, 4),
    ]
    for planes in layouts:
        actual = _run(triplane_render, [planes.requires_grad_(), *inputs[1:]])
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_planes_arranged_once_give_the_same_bits():
    inputs = _inputs((2, 300, 16, 32, 32, 32, 16), torch.float32)
    plain = _run(triplane_render, inputs)

    def arranged(planes, *rest, **options):
        texels = as_texels(planes)
        assert texels.stride(2) == 1 and as_texels(texels) is texels
        return triplane_render(texels, *rest, **options)

    assert all(map(torch.equal, _run(arranged, inputs), plain))
    double = _inputs((1, 1, 4, 4, 4, 4, 4))[0]
    assert as_texels(double) is double  # the twin's


def test_planes_shared_by_a_batch_get_the_sum_of_its_gradients():
    inputs = _inputs((3, 50, 16, 8, 8, 8, 4), torch.float32)
    inputs[0] = inputs[0].detach()[:1].requires_grad_()

    def shared(render):
        return lambda planes, *rest, **options: render(
            planes.expand(3, *[-1] * 4), *rest, **options
        )

    expected = _run(
        shared(triplane_render_torch), [t.detach().double().requires_grad_() for t in inputs]
    )
    actual = _run(shared(triplane_render), inputs)
    assert max(_error(a, e) for a, e in zip(actual, expected, strict=True)) < 5e-6


@pytest.mark.parametrize("wanted", [[0], [1], [2, 5], [0, 1], [1, 3, 4]], ids=str)
def test_gradients_are_made_for_those_who_ask(wanted):
    size = (2, 100, 16, 8, 8, 32, 16)
    inputs = _inputs(size, torch.float32)
    everything = _run(triplane_render, inputs)[2:]
    for i, tensor in enumerate(inputs):
        tensor.requires_grad_(i in wanted)
    for gradient, i in zip(_run(triplane_render, inputs)[2:], wanted, strict=True):
        assert torch.equal(gradient, everything[i])


def test_no_points_give_no_samples_and_zero_gradients():
    sigma, color, *gradients = _run(triplane_render, _inputs((2, 0, 16, 4, 4, 8, 3)))
    assert sigma.shape == (2, 0, 1) and color.shape == (2, 0, 3)
    assert all(g.abs().sum() == 0 for g in gradients)


def test_outputs_and_gradients_do_not_depend_on_what_memory_held(monkeypatch):
    inputs = _inputs((2, 70, 20, 6, 6, 10, 5), torch.float32)
    expected = _run(triplane_render, inputs)

    def poisoned(make):
        return lambda *args, **kwargs: make(*args, **kwargs).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
    actual = _run(triplane_render, inputs)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("where", [0.51, 3.0, 1e6, -1e6])
def test_points_outside_see_the_background_of_the_decoder(where):
    planes, points, *weights = _inputs((1, 40, 16, 1, 1, 8, 3), torch.float32)
    points = torch.full_like(points, where + 1.0 if where > 0 else where).requires_grad_()
    actual = _run(triplane_render, [planes, points, *weights])
    hidden = torch.nn.functional.softplus(weights[1])
    torch.testing.assert_close(actual[0][0, 0], (weights[2] @ hidden + weights[3])[:1])
    assert actual[2].abs().max() == 0 and actual[3].abs().max() == 0


def test_a_lost_point_spoils_only_itself():
    inputs = _inputs((1, 100, 16, 8, 8, 8, 3), torch.float32)
    expected = triplane_render(inputs[0], inputs[1], DecoderWeights(*inputs[2:]), box_warp=1)
    points = inputs[1].detach().clone()
    points[0, 17] = torch.nan
    actual = triplane_render(inputs[0], points, DecoderWeights(*inputs[2:]), box_warp=1)
    assert actual.sigma[0, 17].isnan().all()
    others = torch.arange(100) != 17
    assert torch.equal(actual.sigma[0, others], expected.sigma[0, others])


def test_large_activations_neither_overflow_nor_vanish():
    size = (1, 64, 16, 8, 8, 32, 16)
    actual_inputs, expected_inputs = _inputs(size, torch.float32), _inputs(size)
    for inputs in (actual_inputs, expected_inputs):
        inputs[2].data *= 100
        inputs[3].data *= 100
    actual = _run(triplane_render, actual_inputs)
    expected = _run(triplane_render_torch, expected_inputs)
    assert max(_error(a, e) for a, e in zip(actual, expected, strict=True)) < 2e-5


@pytest.mark.parametrize("batch", [1, 3])
def test_any_number_of_threads_gives_the_same_bits(batch):
    # More than one wave of the kernel, and a last one that is not full.
    inputs = _inputs((batch, 70_000, 4, 16, 16, 4, 3), torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            results.append(_run(triplane_render, inputs))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nothing_per_sample_is_kept_for_the_backward_pass():
    inputs = _inputs((1, 5000, 16, 8, 8, 32, 4), torch.float32)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        samples = triplane_render(inputs[0], inputs[1], DecoderWeights(*inputs[2:]), box_warp=1)
    given = sum(t.numel() for t in inputs)
    assert sum(kept.values()) <= given + samples.color.numel()


def test_other_types_take_the_twin():
    inputs = _inputs((1, 10, 4, 4, 4, 4, 2))
    expected = _run(triplane_render_torch, inputs)
    assert all(
        torch.equal(a, e) for a, e in zip(_run(triplane_render, inputs), expected, strict=True)
    )


CAPABILITY_SCRIPT = """
import json, torch
from tests.torch_utils.test_triplane_render import SIZES, _error, _inputs, _run
from torch_utils.ops import kernels, set_mode, triplane_render
from torch_utils.ops.triplane_render import triplane_render_torch

set_mode("native")
worst = 0
for size in SIZES:
    actual = _run(triplane_render, _inputs(size, torch.float32))
    expected = _run(triplane_render_torch, _inputs(size))
    worst = max(worst, *(_error(a, e) for a, e in zip(actual, expected)))
print(json.dumps([kernels.cpu_capability(), worst]))
"""


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_older_processors_get_instructions_they_know(capability, tmp_path):
    order = ["baseline", "AVX2", "AVX512"]
    expected = "baseline" if capability == "default" else capability.upper()
    if order.index(kernels.cpu_capability()) < order.index(expected):
        pytest.skip(f"this processor has no {capability}")
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", CAPABILITY_SCRIPT], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    used, worst = json.loads(run.stdout)
    assert used == expected and worst < 5e-6


def test_the_baseline_library_holds_no_wide_registers():
    library = kernels.KERNELS.build("triplane_render.cpp", kernels.cpu_options("baseline"))
    listing = subprocess.run(["objdump", "-d", library], capture_output=True, text=True).stdout
    assert "%xmm" in listing or not sys.platform.startswith("linux")
    assert "%ymm" not in listing and "%zmm" not in listing
