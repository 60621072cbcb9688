"""The networks of GeoD. Values: `tests/test_parity_geod.py`."""

import pytest
import torch

from dnnlib import UserError
from training.networks.image_formation import Frustum
from training.networks.inverse_renderer import InverseRenderer


def small(frustum: Frustum | None = None) -> InverseRenderer:
    torch.manual_seed(0)
    return InverseRenderer(frustum, width=16)


def images(batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    noise = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(noise, size=64, mode="bilinear").clamp(-1, 1).to(dtype)


def test_the_published_width_has_the_published_number_of_parameters():
    with torch.device("meta"):
        state = InverseRenderer().state_dict()
    counts = {
        part: sum(tensor.numel() for name, tensor in state.items() if name.startswith(f"net{part}"))
        for part in "DALVC"
    }
    assert counts == {"D": 12979648, "A": 12982848, "L": 1739264, "V": 1739776, "C": 7678208}
    assert len(state) == 114


@torch.no_grad()
def test_the_second_half_is_the_mirror_image_of_the_first():
    parts = small()(images())
    for maps in (parts.geometry.canonical_depth, parts.albedo):
        own, mirrored = maps.chunk(2)
        assert torch.equal(own.flip(-1), mirrored)
    assert parts.reconstruction.shape == (4, 3, 64, 64)
    assert parts.geometry.view.shape == (2, 6) and parts.geometry.mask.shape == (2, 1, 64, 64)


@torch.no_grad()
def test_depth_lies_within_the_frustum_and_its_edges_at_the_border():
    frustum = Frustum(near=2.35, far=3.05)
    depth = small(frustum).canonical_depth(torch.randn(2, 64, 64) * 50)
    assert depth.min() >= frustum.near and depth.max() <= frustum.far
    edges = torch.cat([depth[:, :, :2], depth[:, :, -2:]], dim=-1)
    torch.testing.assert_close(edges, torch.full_like(edges, frustum.border))


@torch.no_grad()
def test_the_shape_alone_is_that_of_the_whole():
    network = small()
    for alone, whole in zip(network.geometry(images()), network(images()).geometry, strict=True):
        assert torch.equal(alone, whole)


@torch.no_grad()
def test_single_and_double_precision_agree():
    single = small()(images())
    double = small().double()(images(dtype=torch.float64))
    for name in ("albedo", "canonical_image", "diffuse_shading"):
        wide = getattr(double, name)
        assert wide.dtype == torch.float64
        torch.testing.assert_close(getattr(single, name).double(), wide, atol=1e-3, rtol=1e-3)
    difference = single.geometry.depth.double() - double.geometry.depth
    assert difference.abs().median() < 1e-6  # an outline may lie a sub-pixel elsewhere


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0, 5.0])
def test_constant_images_give_finite_numbers(value):
    network = small()
    image = torch.full((2, 3, 64, 64), value, requires_grad=True)
    parts, confidence = network(image), network.confidence(image)
    (parts.reconstruction.sum() + parts.geometry.normal.sum() + confidence.pixels.sum()).backward()
    assert parts.canonical_image.isfinite().all() and image.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 64, 64), (3, 64, 64)])
def test_refuses_images_of_another_size(shape):
    for function in (small(), small().geometry, small().confidence):
        with pytest.raises(UserError, match="64"):
            function(torch.zeros(shape))
