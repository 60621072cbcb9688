"""Network files of every header length are read; kinds of files are told apart."""

import pickle

import pytest
import torch

from dnnlib import UserError
from tests.helpers import tiny_config
from training.files.network_file import load_network, save_network
from training.networks.generator import Generator


def header_length(path) -> int:
    return int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize("first_byte", [b"\x80", b" ", b"P", b"x"])
def test_the_first_byte_of_a_network_file_may_be_any(first_byte, tmp_path):
    """It belongs to the length of the header, which provenance lengthens."""
    path, generator = tmp_path / "network.safetensors", Generator(tiny_config())
    save_network(path, generator, None, {"note": ""})
    missing = (first_byte[0] - header_length(path)) % 256
    save_network(path, generator, None, {"note": "x" * missing})
    assert path.read_bytes().startswith(first_byte)
    loaded = load_network(path)
    assert loaded.provenance == {"note": "x" * missing}
    for name, tensor in generator.state_dict().items():
        assert torch.equal(loaded.generator.state_dict()[name], tensor)


def test_a_pickle_is_known_by_its_content(tmp_path):
    path = tmp_path / "network.ckpt"
    path.write_bytes(pickle.dumps({"G": None}, protocol=4))
    with pytest.raises(UserError, match="not a usable old checkpoint: it holds no network 'G_ema'"):
        load_network(path)
