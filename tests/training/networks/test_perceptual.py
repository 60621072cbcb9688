"""Features of images: whence they come, what is refused."""

import sys

import pytest
import torch

from dnnlib import UserError
from training.networks import perceptual
from training.networks.perceptual import (
    LITE0,
    RANDOM,
    VGGFeatures,
    describe_features,
    load_features,
)


def images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def vgg_file(path, change=lambda state: state, classifier=True):
    """As torchvision stores it: the layers of other uses are there too."""
    torch.manual_seed(0)
    state = VGGFeatures().state_dict()
    if classifier:
        state |= {"features.28.weight": torch.zeros(512), "classifier.0.bias": torch.zeros(4096)}
    torch.save(change(state), path)
    return path


@pytest.fixture(params=[LITE0, RANDOM, "vgg"])
def which(request, tmp_path):
    if request.param == LITE0:
        pytest.importorskip("efficientnet_lite_pytorch")
    return str(vgg_file(tmp_path / "vgg16.pth")) if request.param == "vgg" else request.param


def test_features_are_a_quarter_as_wide_frozen_and_the_same_each_time(which):
    features = load_features(which)
    found = features(images())
    assert found.shape[0] == 2 and found.shape[2:] == (16, 16) and found.dtype == torch.float32
    assert not any(p.requires_grad for p in features.parameters())
    assert torch.equal(load_features(which).train()(images()), found)
    assert describe_features(which) and len(describe_features(which).splitlines()) == 1


def test_loading_leaves_the_random_state_alone(which):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load_features(which)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_are_those_of_finite_differences(which):
    features = load_features(which).double()
    image = images(1).double().requires_grad_()
    features(image).square().mean().backward()
    direction = torch.randn(image.shape, dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (features(image + s * direction).square().mean() for s in (1e-6, -1e-6))
    expected = (ahead - behind).item() / 2e-6
    assert (image.grad * direction).sum().item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", [LITE0, RANDOM])
def test_features_spread_by_about_one(name):
    """Where confidences of networks that have not learned anything yet suit them."""
    if name == LITE0:
        pytest.importorskip("efficientnet_lite_pytorch")
    assert 0.3 < load_features(name)(images(4)).std() < 3


def test_without_the_package_the_refusal_names_every_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError) as refusal:
        load_features(LITE0)
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    assert all(way in message for way in ("requirements-metrics.txt", "VGG16", RANDOM))


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        without("features.14.bias"),
        lambda state: state | {"features.0.weight": torch.zeros(64, 3, 5, 5)},
        lambda state: [state],
        lambda state: {"model": state},
    ],
)
def test_refuses_a_file_of_other_weights(tmp_path, change):
    path = vgg_file(tmp_path / "vgg16.pth", change)
    with pytest.raises(UserError, match="VGG16|by name"):
        load_features(str(path))


@pytest.mark.parametrize("content", [b"", b"\x80\x04 no pickle", b"PK\x03\x04 no zip"])
def test_refuses_a_damaged_file_in_one_line(tmp_path, content):
    path = tmp_path / "vgg16.pth"
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        load_features(str(path))
    assert len(str(refusal.value).splitlines()) == 1 and str(path) in str(refusal.value)


@pytest.mark.parametrize("name", ["missing.pth", "", "vgg16", "."])
def test_refuses_a_path_that_is_no_file(name):
    for function in (load_features, describe_features):
        with pytest.raises(UserError):
            function(name)


def test_vgg_is_that_of_the_paper():
    """1.74 million parameters up to relu3_3, under torchvision's names."""
    with torch.device("meta"):
        state = VGGFeatures().state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == 1_735_488
    assert {key.split(".")[1] for key in state} == {"0", "2", "5", "7", "10", "12", "14"}
    assert perceptual.STRIDE == 4
