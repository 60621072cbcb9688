"""Every GPU kernel, compiled for the host and called as on a GPU, against its plain torch twin."""

import math

import pytest
import torch
from torch import Tensor

import neural_renderer as nr
from torch_utils.ops import bias_act, triplane_render, upfirdn2d
from torch_utils.ops.bias_act import bias_act_formula
from torch_utils.ops.triplane_render import PLANE_AXES, DecoderWeights, triplane_render_torch
from torch_utils.ops.upfirdn2d import Plan, upfirdn2d_torch

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


# Each makes a tensor of the same values with other strides.
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": _channels_last,
    "transposed": lambda x: x.mT.contiguous().mT,
    "batch_innermost": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "gaps": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "expanded": lambda x: x[:1].expand_as(x),
    "stride_0_of_size_1": lambda x: x[:, :1].as_strided(
        (len(x), 1, *x.shape[2:]), (x[0, 0].numel(), 0, x.shape[3], 1)
    ),
}


def derivatives(function, inputs: list[Tensor], orders: int) -> list[Tensor]:
    """What a function returns, its gradients, and theirs, with random seeds."""
    torch.manual_seed(5)
    inputs = [t.detach().requires_grad_() for t in inputs]
    outputs, found = function(*inputs), []
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    for order in range(orders + 1):
        found += outputs
        if order < orders:
            seeds = [torch.randn(t.shape, dtype=torch.float64).to(t.dtype) for t in outputs]
            seeds = [t.requires_grad_() for t in seeds]
            more = order + 1 < orders
            outputs = list(torch.autograd.grad(outputs, inputs, seeds, create_graph=more))
            inputs = seeds
    return [t.detach() for t in found]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float | None = None):
    """Expected values are in double precision; errors are relative to the largest."""
    for a, e in zip(actual, expected, strict=True):
        assert e.abs().max() > 0
        allowed = tolerance or 16 * torch.finfo(a.dtype).eps
        assert (a.double() - e).abs().max() <= allowed * e.abs().max(), (a.dtype, a.shape)


def in_doubles(function, inputs: list[Tensor], orders: int) -> list[Tensor]:
    return derivatives(function, [t.double() for t in inputs], orders)


@pytest.mark.parametrize("clamp", [None, 0.7, 181.0193])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bias_act(gpu, dtype, layout, clamp):
    torch.manual_seed(0)
    # Some results are clamped; none lies so near the clamp, or zero, that rounding decides.
    step = 18.75 if clamp and clamp > 1 else 0.125
    x = LAYOUTS[layout]((torch.randn(3, 5, 17, 9) * 8).round().clamp(-16, 16).mul(step).to(dtype))
    bias = (torch.randn(x.shape[1]) * 8).round().clamp(-16, 16).add(0.25).mul(step).to(dtype)
    clamp_of_dtype = None if clamp is None else torch.tensor(clamp, dtype=dtype).item()

    def formula(x, bias):
        return bias_act_formula(x, bias[:, None, None], "lrelu", 0.2, 1.25, clamp_of_dtype)

    actual = derivatives(
        lambda x, bias: bias_act(x, bias, act="lrelu", gain=1.25, clamp=clamp), [x, bias], 2
    )
    expected = in_doubles(formula, [x, bias], 2)
    # What is not dense is left to plain torch, which rounds after every operation.
    by_torch = 64 * torch.finfo(dtype).eps if layout in ("gaps", "expanded") else None
    assert_close(actual, expected, by_torch)


@pytest.mark.parametrize(
    "shape, dim, options",
    [
        ((7,), 0, {"act": "relu"}),
        ((1, 1), 1, {"act": "lrelu", "alpha": 0.0}),
        ((300, 11), -1, {"act": "lrelu", "gain": 0.3}),
        ((4, 1000), 0, {"act": "relu", "clamp": 0.5}),
        ((1, 3, 1, 1), 1, {"act": "lrelu", "alpha": 1.0, "clamp": 2}),
        ((2, 3, 4, 5, 6), 3, {"act": "lrelu"}),
    ],
    ids=str,
)
def test_bias_act_of_any_shape(gpu, shape, dim, options):
    torch.manual_seed(0)
    x = torch.randn(shape)
    for bias in (None, torch.randn(shape[dim])):
        inputs = [x] if bias is None else [x, bias]

        def run(x, bias=None):
            return bias_act(x, bias, dim=dim, **options)

        actual = derivatives(run, inputs, 1)
        gpu["bias_act"] = None
        expected = in_doubles(run, inputs, 1)
        del gpu["bias_act"]
        assert_close(actual, expected, 1e-6)


def test_bias_act_reads_and_writes_nothing_without_elements(gpu):
    x = torch.empty(0, 3, requires_grad=True)
    bias_act(x, torch.zeros(3), act="lrelu").sum().backward()
    assert x.grad.shape == (0, 3)


PLANS = [
    Plan((1, 1), (1, 1), (1, 2, 0, 3)),
    Plan((2, 2), (1, 1), (2, 1, 2, 1)),
    Plan((1, 1), (2, 2), (1, 1, 1, 1)),
    Plan((3, 2), (2, 3), (4, -1, -2, 5)),
    Plan((1, 4), (3, 1), (0, 5, 2, 2)),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_upfirdn2d(gpu, dtype, plan, layout):
    torch.manual_seed(0)
    x = LAYOUTS[layout](torch.randn(3, 5, 9, 7).to(dtype))
    kernel = torch.randn(3, 4)

    def run(x):
        return upfirdn2d(x, kernel, up=plan.up, down=plan.down, padding=plan.padding)

    actual = derivatives(run, [x], 2)
    expected = in_doubles(lambda x: upfirdn2d_torch(x, kernel.double(), plan), [x], 2)
    assert_close(actual, expected)
    if layout == "channels_last":
        assert actual[0].is_contiguous(memory_format=torch.channels_last)


def field(channels=16, colors=32, hidden=24, count=301, batch=3, size=(5, 7)) -> list[Tensor]:
    """Planes, points (some outside) and a decoder. Planes so small that blocks share texels."""
    torch.manual_seed(0)
    planes = torch.randn(batch, 3, channels, *size)
    points = (torch.rand(batch, count, 3) - 0.5) * 1.6
    shapes = ((hidden, channels), (hidden,), (1 + colors, hidden), (1 + colors,))
    return [planes, points, *(torch.randn(s) / math.sqrt(s[-1]) for s in shapes)]


def rendering(render, axes="full"):
    def run(planes, points, *decoder):
        weights = DecoderWeights(*decoder)
        return tuple(render(planes, points, weights, box_warp=1.1, axes=axes))

    return run


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"channels": 32, "colors": 32, "hidden": 64},  # the paper's: more shared memory than 48 KB
        {"channels": 32, "colors": 16, "hidden": 1, "batch": 1, "count": 1},
        {"channels": 16, "colors": 16, "hidden": 33, "size": (1, 1)},
        {"count": 64, "batch": 1, "size": (64, 3)},
    ],
    ids=str,
)
def test_triplane_render(gpu, sizes):
    inputs = field(**sizes)
    actual = derivatives(rendering(triplane_render), inputs, 1)
    expected = in_doubles(rendering(triplane_render_torch), inputs, 1)
    assert_close(actual, expected, 2e-5)


@pytest.mark.parametrize("axes", PLANE_AXES)
def test_triplane_render_of_texels(gpu, axes):
    """Planes that come as channels-last images are read and differentiated in place."""
    planes, *others = field()
    texels = _channels_last(planes.flatten(1, 2)).unflatten(1, planes.shape[1:3])
    assert texels.stride(2) == 1
    actual = derivatives(rendering(triplane_render, axes), [texels, *others], 1)
    expected = in_doubles(rendering(triplane_render_torch, axes), [planes, *others], 1)
    assert_close(actual, expected, 2e-5)


@pytest.mark.parametrize("wanted", [{0}, {1}, {2}, {0, 5}, {1, 3}], ids=str)
def test_triplane_render_computes_the_gradients_that_are_wanted(gpu, wanted):
    inputs = [t.requires_grad_(i in wanted) for i, t in enumerate(field())]
    leaves = [t for t in inputs if t.requires_grad]
    found = {}
    for render in (triplane_render, triplane_render_torch):
        sigma, color = rendering(render)(*inputs)
        loss = sigma.sum() + color.square().sum()  # gradients are expanded scalars
        found[render] = torch.autograd.grad(loss, leaves)
    expected = [t.double() for t in found[triplane_render_torch]]
    assert_close(list(found[triplane_render]), expected, 2e-5)


def test_triplane_render_leaves_to_torch_what_does_not_fit(gpu):
    for sizes in ({"hidden": 200, "channels": 32}, {"channels": 8}, {"colors": 3}):
        gpu["triplane_render"] = None  # cannot be called
        inputs = field(**sizes)
        outputs = rendering(triplane_render)(*inputs)
        assert_close(list(outputs), [t.double() for t in rendering(triplane_render_torch)(*inputs)])


def test_points_that_are_nan_see_nothing(gpu):
    planes, points, *decoder = field(batch=1)
    points[0, ::2] = torch.nan
    actual = rendering(triplane_render)(planes, points, *decoder)
    outside = rendering(triplane_render)(planes, points.nan_to_num(100), *decoder)
    assert all(torch.equal(a, b) for a, b in zip(actual, outside, strict=True))


def scene(dtype, perspective, faces=25, batch=2) -> list[Tensor]:
    """Random faces, some of them behind the camera, and their textures."""
    torch.manual_seed(0)
    vertices = torch.rand(batch, faces, 3, 3, dtype=torch.float64) * 3 - 1.5
    vertices[..., 2] += 1.2 if perspective else 2
    textures = torch.rand(batch, faces, 3, 3, 3, 3, dtype=torch.float64)
    return [vertices.to(dtype), textures.to(dtype)]


def drawing(ops, perspective, size):
    def run(faces, textures):
        images = nr.rasterize_rgbad(faces, textures, size, perspective=perspective, ops=ops)
        return tuple(image for image in images.values() if image is not None)

    return run


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("perspective", [True, False])
@pytest.mark.parametrize("size", [1, 33])
def test_rasterizer(gpu, dtype, tolerance, perspective, size):
    inputs = scene(dtype, perspective)
    actual = derivatives(drawing("native", perspective, size), inputs, 1)
    expected = derivatives(drawing("torch", perspective, size), inputs, 1)
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).norm() <= tolerance * e.norm()
    assert sum(e.norm() > 0 for e in expected) >= 3


def test_rasterizer_draws_the_background_where_there_are_no_faces(gpu):
    inputs = [t[:, :0] for t in scene(torch.float32, True)]
    assert all(image.isfinite().all() for image in drawing("native", True, 8)(*inputs))
