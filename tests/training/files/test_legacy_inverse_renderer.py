"""Published inverse renderers, read without running them."""

import gzip
from pathlib import Path

import pytest
import torch

from dnnlib import UserError
from training.files import safe_unpickle
from training.files.legacy_inverse_renderer import load_inverse_renderer, read_inverse_renderer
from training.files.safe_unpickle import Record, as_dict
from training.networks.image_formation import Frustum

DATA = Path(__file__).parents[2] / "data"
PICKLE = gzip.decompress((DATA / "geod" / "geod_legacy_ir.pkl.gz").read_bytes())


@pytest.fixture
def stored() -> Record:
    return as_dict(safe_unpickle.load(memoryview(bytearray(PICKLE))))["IR"]


def test_reads_a_published_file(tmp_path):
    """Its tensors are constant: each one's place among the sorted names, over 128."""
    path = tmp_path / "network-snapshot.pkl"
    path.write_bytes(PICKLE)
    network = read_inverse_renderer(path)
    state = network.state_dict()
    assert len(state) == 114
    for i, name in enumerate(sorted(state)):
        assert torch.equal(state[name], torch.full_like(state[name], i / 128)), name
    assert network.frustum == Frustum()
    assert not any(p.requires_grad for p in network.parameters())
    assert network(torch.zeros(1, 3, 64, 64)).reconstruction.isfinite().all()


def test_depths_are_those_of_the_file(stored):
    stored.state |= {
        "min_depth": 2.35,
        "max_depth": 3.05,
        "border_depth": 0.7 * 3.05 + 0.3 * 2.35,
        "rot_center_depth": 2.7,
    }
    assert load_inverse_renderer(stored, len(PICKLE)).frustum == Frustum(2.35, 3.05)


@pytest.mark.parametrize(
    "key, value",
    [
        ("min_depth", 2.0),  # the others no longer follow from it
        ("max_depth", 0.1),
        ("max_depth", "far"),
        ("max_depth", float("nan")),
        ("max_depth", True),
        ("resolution", 128),
        ("rot_center_depth", 0),
        ("xyz_rotation_range", 90),
        ("z_translation_range", None),
        ("min_amb_light", [0]),
    ],
)
def test_refuses_images_that_are_formed_in_another_way(stored, key, value):
    stored.state[key] = value
    with pytest.raises(UserError) as refusal:
        load_inverse_renderer(stored, len(PICKLE))
    assert len(str(refusal.value).splitlines()) == 1


def layer(stored: Record, path: str) -> dict:
    part = stored.part(path)
    assert part is not None
    return part.settings()["_parameters"]


def test_refuses_a_missing_and_a_misshapen_tensor(stored):
    parameters = layer(stored, "netL.network.10")
    weight = parameters.pop("weight")
    with pytest.raises(UserError, match="lacks the tensor netL.network.10.weight"):
        load_inverse_renderer(stored, len(PICKLE))
    parameters["weight"] = layer(stored, "netV.network.10")["weight"]
    with pytest.raises(UserError, match=r"netL.network.10.weight has shape \[6"):
        load_inverse_renderer(stored, len(PICKLE))
    parameters["weight"] = weight
    load_inverse_renderer(stored, len(PICKLE))


def test_refuses_more_weights_than_the_file_has_bytes(stored):
    with pytest.raises(UserError, match="more weights"):
        load_inverse_renderer(stored, 1000)


def test_refuses_another_network(stored):
    del stored.part("netD").settings()["_modules"]["network"]
    with pytest.raises(UserError, match="not an inverse renderer"):
        load_inverse_renderer(stored, len(PICKLE))


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", PICKLE[:-5000], b"\x1f\x8b"])
def test_refuses_another_file_in_one_line(tmp_path, content):
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        read_inverse_renderer(path)
    assert len(str(refusal.value).splitlines()) == 1 and "network.pkl" in str(refusal.value)


def test_refuses_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_inverse_renderer(tmp_path / "none.pkl")
