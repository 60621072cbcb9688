"""Detectors: a stand-in of the field's signature, the offline one, and what goes wrong."""

import hashlib
import urllib.error
import urllib.request

import pytest
import torch

from dnnlib import UserError
from metrics import detectors
from metrics.detectors import load_detector
from tests.metrics.fakes import colored_noise, save_stand_in
from torch_utils.images import to_uint8

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    return save_stand_in(tmp_path_factory.mktemp("detector") / "stand in.pt")


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "detectors" / "inception-2015-12-05.pt"


def test_stand_in_gives_features_and_probabilities(stand_in):
    detector = load_detector(str(stand_in), CPU)
    images = colored_noise(5, seed=0)
    features = detector.features(images)
    assert features.shape == (5, detector.dim) == (5, 48)
    expected = torch.nn.functional.adaptive_avg_pool2d(images / 255, 4).flatten(1)
    assert torch.allclose(features, expected)
    probabilities = detector.probabilities(images)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(5))
    assert probabilities[:, 0].max() < 0.99  # without the output's bias


def test_other_files_than_the_fields_are_named_after_themselves(stand_in, monkeypatch):
    digest = hashlib.sha256(stand_in.read_bytes()).hexdigest()
    assert load_detector(str(stand_in), CPU).name == f"stand_in-{digest[:8]}"
    monkeypatch.setattr(detectors, "INCEPTION_SHA256", digest)
    assert load_detector(str(stand_in), CPU).name == "inception"


def test_inception_in_the_cache_is_taken_without_network(stand_in, no_network, monkeypatch):
    no_network.parent.mkdir()
    no_network.write_bytes(stand_in.read_bytes())
    digest = hashlib.sha256(stand_in.read_bytes()).hexdigest()
    monkeypatch.setattr(detectors, "INCEPTION_SHA256", digest)
    assert load_detector("inception", CPU).name == "inception"


def test_without_network_one_line_says_what_to_fetch_and_where_to_put_it(no_network):
    with pytest.raises(UserError) as error:
        load_detector("inception", CPU)
    message = str(error.value)
    assert "\n" not in message
    for part in (detectors.INCEPTION_URL, str(no_network), "no route to host", "efficientnet"):
        assert part in message


def test_download_lands_in_the_cache_once_it_is_verified(stand_in, no_network, monkeypatch):
    fetched = []

    def serve(url, timeout):
        fetched.append(url)
        return open(stand_in, "rb")

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    with pytest.raises(UserError, match="wrong checksum"):
        load_detector("inception", CPU)
    assert not no_network.exists()
    digest = hashlib.sha256(stand_in.read_bytes()).hexdigest()
    monkeypatch.setattr(detectors, "INCEPTION_SHA256", digest)
    load_detector("inception", CPU)
    load_detector("inception", CPU)
    assert len(fetched) == 2
    no_network.write_bytes(b"damaged")
    load_detector("inception", CPU)
    assert len(fetched) == 3


@pytest.mark.parametrize("content", [b"not a network", b""])
def test_files_that_are_no_torchscript_get_one_line(tmp_path, content):
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a TorchScript file") as error:
        load_detector(str(path), CPU)
    assert "\n" not in str(error.value)


def test_torchscript_of_another_signature_gets_one_line(tmp_path):
    path = tmp_path / "other.pt"
    torch.jit.script(torch.nn.Identity()).save(str(path))
    with pytest.raises(UserError, match="return_features") as error:
        load_detector(str(path), CPU)
    assert "\n" not in str(error.value)


def test_unknown_detector_gets_one_line(tmp_path):
    with pytest.raises(UserError, match="'inception', 'efficientnet-lite0' or a TorchScript"):
        load_detector("resnet", CPU)


def test_quantised_samples_are_the_photographs_pixels():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_efficientnet_recognizes_a_cat_and_coffee():
    pytest.importorskip("efficientnet_lite_pytorch")
    from skimage import data

    detector = load_detector("efficientnet-lite0", CPU)
    cat, coffee = (
        torch.from_numpy(image[:300, 60:360]).permute(2, 0, 1)
        for image in (data.chelsea(), data.coffee()[50:350, 100:])
    )
    classes = detector.probabilities(torch.stack([cat, coffee])).argmax(dim=1).tolist()
    assert classes[0] in (281, 282, 285)  # tabby, tiger cat, Egyptian cat of ImageNet
    assert classes[1] in (504, 967, 968)  # mug, espresso, cup
    features = detector.features(torch.stack([cat, coffee]))
    assert features.shape == (2, detector.dim) == (2, 1280)
    assert detector.name == "effnet"


def test_missing_efficientnet_gets_one_line(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-metrics.txt"):
        load_detector("efficientnet-lite0", CPU)
