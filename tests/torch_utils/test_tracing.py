"""Operations under torch.compile, torch.export, and with tensors that have no memory."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from torch_utils.ops import bias_act, resample_filter, triplane_render, upfirdn2d, using
from torch_utils.ops.triplane_render import DecoderWeights, native_library

TRIPLANE_SHAPES = ((1, 3, 4, 8, 6), (1, 20, 3), (8, 4), (8,), (4, 8), (4,))


def _tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=random).requires_grad_() for s in shapes]


class Layer(torch.nn.Module):
    """All the operations, one after the other."""

    def forward(self, x, bias, planes, points, *weights):
        x = bias_act(x, bias, act="lrelu", clamp=0.5)
        x = upfirdn2d(x, resample_filter([1, 3, 3, 1]), up=2, padding=(2, 1, 2, 1), gain=4)
        samples = triplane_render(planes, points, DecoderWeights(*weights), box_warp=1.3)
        return x, *samples


LAYER_SHAPES = ((2, 3, 4, 5), (3,), *TRIPLANE_SHAPES)


@pytest.fixture(params=["native", "torch"])
def mode(request):
    if native_library(torch.device("cpu")) is None:
        pytest.skip("the kernel cannot be built here")
    with using(request.param):
        yield request.param


def _results(function, inputs):
    outputs = function(*inputs)
    return [*outputs, *torch.autograd.grad(sum((y**2).sum() for y in outputs), inputs)]


def test_compiled_gives_what_eager_gives(mode):
    torch.compiler.reset()
    inputs = _tensors(*LAYER_SHAPES)
    compiled = torch.compile(Layer(), backend="aot_eager", fullgraph=True)
    for actual, expected in zip(_results(compiled, inputs), _results(Layer(), inputs), strict=True):
        torch.testing.assert_close(actual, expected)


def test_exported_gives_what_eager_gives(mode):
    inputs = tuple(t.detach() for t in _tensors(*LAYER_SHAPES))
    program = torch.export.export(Layer(), inputs)
    torch.testing.assert_close(program.module()(*inputs), Layer()(*inputs))
    targets = {str(node.target) for node in program.graph.nodes}
    assert ("pof3d.triplane_render.default" in targets) == (mode == "native")


@pytest.mark.parametrize("place", [FakeTensorMode, lambda: torch.device("meta")])
def test_shapes_without_values(mode, place):
    inputs = _tensors(*LAYER_SHAPES)
    expected = [t.shape for t in _results(Layer(), inputs)]
    with place():
        blanks = [torch.empty(t.shape, requires_grad=True) for t in inputs]
        results = _results(Layer(), blanks)
    assert [t.shape for t in results] == expected


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("clamp", [None, 0.5])
def test_bend_is_well_registered(layout, clamp):
    x, bias, y = _tensors((2, 3, 4, 5), (1, 3, 1, 1), (2, 3, 4, 5))
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    opcheck(torch.ops.pof3d.bend.default, (x, bias, 0.2, 1.4, clamp))
    opcheck(torch.ops.pof3d.bend.default, (x, None, 0.0, 1.4, clamp))
    opcheck(torch.ops.pof3d.bend_derivative.default, (x, y.detach(), 0.2, 1.4, clamp))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_resample_is_well_registered(layout, up, down):
    (x,) = _tensors((2, 4, 6, 5))
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    kernel = resample_filter([1, 3, 3, 1])
    inputs = (x, kernel, [up, up], [down, down], [2, 1, 2, 1])
    opcheck(torch.ops.pof3d.resample.default, inputs)


@pytest.mark.parametrize("planar", [True, False])
def test_triplane_render_is_well_registered(mode, planar):
    planes, *rest = _tensors(*TRIPLANE_SHAPES)
    if not planar:
        image = planes.detach().flatten(1, 2).contiguous(memory_format=torch.channels_last)
        planes = image.unflatten(1, (3, -1)).requires_grad_()
    with using("native"):
        opcheck(torch.ops.pof3d.triplane_render.default, (planes, *rest, 1.3, "full"))


def test_second_derivatives_of_the_registered_operations():
    x, bias = (t.detach().double().requires_grad_() for t in _tensors((1, 2, 3, 4), (1, 2, 1, 1)))
    kernel = resample_filter([1, 3, 3, 1]).double()

    def bend(x, bias):
        return torch.ops.pof3d.bend(x, bias, 0.2, 1.4, None) ** 2

    def resample(x):
        return torch.ops.pof3d.resample(x, kernel, [2, 2], [1, 1], [2, 1, 2, 1]) ** 2

    assert torch.autograd.gradgradcheck(bend, (x, bias))
    assert torch.autograd.gradgradcheck(resample, (x,))


def test_second_derivatives_of_triplane_render_are_refused(mode):
    if mode == "torch":
        pytest.skip("stock torch refuses in its own words")
    inputs = _tensors(*TRIPLANE_SHAPES)
    samples = triplane_render(*inputs[:2], DecoderWeights(*inputs[2:]), box_warp=1.0)
    loss = (samples.sigma**2).sum()
    (gradient,) = torch.autograd.grad(loss, inputs[2], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
