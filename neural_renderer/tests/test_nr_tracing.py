"""Rendering under torch.compile, torch.export, and with tensors that have no memory."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import neural_renderer as nr
from neural_renderer.ops import native

pytestmark = pytest.mark.skipif(
    native.library(torch.device("cpu"), "auto") is None,
    reason="the native kernels cannot be built here",
)


# The last check of `opcheck` cannot sum outputs that are whole numbers.
STATIC = ("test_schema", "test_autograd_registration", "test_faketensor")


class Scene(torch.nn.Module):
    def forward(self, vertices, textures):
        faces = torch.arange(12, device=vertices.device).view(1, 4, 3)
        return tuple(nr.Renderer(16, camera_mode="look_at")(vertices, faces, textures))


@pytest.fixture
def inputs():
    random = torch.Generator().manual_seed(0)
    vertices = torch.rand(1, 12, 3, generator=random) * 2 - 1
    textures = torch.rand(1, 4, 2, 2, 2, 3, generator=random)
    return vertices.requires_grad_(), textures.requires_grad_()


def results(function, inputs):
    outputs = function(*inputs)
    return [*outputs, *torch.autograd.grad(sum((y**2).sum() for y in outputs), inputs)]


def test_compiled_gives_what_eager_gives(inputs):
    torch.compiler.reset()
    compiled = torch.compile(Scene(), backend="aot_eager", fullgraph=True)
    expected = results(Scene(), inputs)
    assert all(t.abs().sum() > 0 for t in expected)
    for a, b in zip(results(compiled, inputs), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_exported_gives_what_eager_gives(inputs):
    inputs = tuple(t.detach() for t in inputs)
    program = torch.export.export(Scene(), inputs)
    torch.testing.assert_close(program.module()(*inputs), Scene()(*inputs))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shapes_without_values(inputs, device):
    expected = [t.shape for t in results(Scene(), inputs)]
    with FakeTensorMode():
        blanks = [torch.empty(t.shape, device=device, requires_grad=True) for t in inputs]
        assert [t.shape for t in results(Scene(), blanks)] == expected


def test_meta_tensors_are_drawn(inputs):
    blanks = [t.detach().to("meta").requires_grad_() for t in inputs]
    assert [t.device.type for t in results(Scene(), blanks)] == ["meta"] * 5


@pytest.mark.parametrize("perspective", [True, False])
def test_operations_are_well_registered(inputs, perspective):
    vertices, textures = inputs
    faces = vertices.detach().view(1, 4, 3, 3) + torch.tensor([0, 0, 2.0])
    drawing = (9, 0.1, 100.0, perspective)
    ops = torch.ops.neural_renderer
    opcheck(ops.rasterize.default, (faces.requires_grad_(), *drawing), test_utils=STATIC)
    index, weights, depth = (t.detach() for t in ops.rasterize(faces, *drawing))
    faces = faces.detach()
    background = torch.zeros(3)
    opcheck(ops.sample.default, (textures, index, weights, background))
    image = ops.sample(textures, index, weights, background).detach()
    opcheck(ops.depth_gradient.default, (faces, index, depth, 9, perspective))
    opcheck(ops.texture_gradient.default, (index, weights, image, list(textures.shape)))
    opcheck(ops.sweep.default, (faces, index, depth, image, image, 9, perspective, 1e-3))
