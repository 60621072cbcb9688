"""What --network takes: files, run folders; and what it says of everything else."""

import gzip
import json
import os
import zipfile

import pytest
import torch
from PIL import Image

from dnnlib import UserError
from tests.helpers import tiny_config
from training.files.network_file import find_network, load_network, save_network
from training.networks.generator import Generator


def test_a_run_folder_means_its_newest_network(tmp_path):
    torch.manual_seed(0)
    generator = Generator(tiny_config()).eval()
    for kimg in (4.0, 120.5, 16.0):
        path = tmp_path / f"network-{kimg:09.2f}.safetensors"
        save_network(path, generator, None, {"kimg": kimg})
    (tmp_path / "checkpoint-000999.00.pt").touch()
    assert load_network(tmp_path).provenance == {"kimg": 120.5}
    assert find_network(str(tmp_path)).name == "network-000120.50.safetensors"


def test_a_folder_of_runs_means_the_newest_run_that_has_a_network(tmp_path):
    for name in ("00009-toy/network-000900.00", "00010-toy/network-000001.00"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.safetensors").write_bytes(b"?")
    (tmp_path / "00011-toy").mkdir()
    assert find_network(tmp_path) == tmp_path / "00010-toy/network-000001.00.safetensors"


def test_a_folder_without_networks_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no network-.*first snapshot"):
        load_network(tmp_path)


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
MISFITS = {
    "empty": (lambda path: path.touch(), "is empty"),
    "lfs": (lambda path: path.write_bytes(LFS), "git-LFS pointer.*git lfs pull"),
    "html": (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>"), "is a web page"),
    "html with a mark": (lambda path: path.write_bytes(b"\xef\xbb\xbf<HTML>"), "is a web page"),
    "zip": (zipped, "zip archive or a training checkpoint"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"x")), "is compressed"),
    "picture": (lambda path: Image.new("RGB", (4, 4)).save(path, format="png"), "is a picture"),
    "json": (lambda path: path.write_text(json.dumps({"a": 1})), "is JSON text"),
    "text": (lambda path: path.write_text("weights"), "not a "),
}


@pytest.mark.parametrize("extension", [".safetensors", ".pkl", ".PKL", ""])
@pytest.mark.parametrize("kind", MISFITS)
def test_what_is_no_network_is_named(kind, extension, tmp_path):
    write, message = MISFITS[kind]
    path = tmp_path / f"network{extension}"
    write(path)
    with pytest.raises(UserError, match=message) as caught:
        load_network(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["https://x.org/a.pkl", "http://x/a", "s3://b/a.pkl", "HF://a"])
def test_addresses_are_to_be_downloaded(address):
    with pytest.raises(UserError, match="is an address: download"):
        load_network(address)


def test_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "network.pkl")
    with pytest.raises(UserError, match="a device or a pipe"):
        load_network(tmp_path / "network.pkl")


@pytest.mark.parametrize("name", ["old.PKL", "old.pickle", "old"])
def test_pickles_are_known_by_whatever_name(name, tmp_path):
    """What is said of a pickle that holds no network shows who read it."""
    (tmp_path / name).write_bytes(b"\x80\x04}.")
    with pytest.raises(UserError, match="not a usable old checkpoint"):
        load_network(tmp_path / name)


LOOK_ALIKES = (b"\x80\x02", b"\x80\x04", b"\x1f\x8b", b"\xff\xd8", b"{\x20", b"PK", b" \n")


@pytest.mark.parametrize("beginning", LOOK_ALIKES)
def test_a_network_whose_first_bytes_look_like_something_else_is_read(beginning, tmp_path):
    """A safetensors file begins with the length of its header, any number."""
    torch.manual_seed(0)
    path = tmp_path / "network.safetensors"
    save_network(path, Generator(tiny_config()).eval(), None, {"kimg": 1})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    padded = int.from_bytes(beginning, "little")  # the header may end in spaces
    padded += (max(length - padded, 0) // 2**16 + 1) * 2**16
    header = data[8 : 8 + length].ljust(padded)
    path.write_bytes(padded.to_bytes(8, "little") + header + data[8 + length :])
    assert path.read_bytes().startswith(beginning)
    assert load_network(path).provenance == {"kimg": 1}


def test_the_generator_computes_in_the_precision_that_is_asked_for(tmp_path, monkeypatch):
    torch.manual_seed(0)
    path = tmp_path / "network.safetensors"
    save_network(path, Generator(tiny_config()).eval(), None, {})

    def image(precision):
        return load_network(path, precision=precision).generator(torch.ones(1, 8)).image

    full, half = image("fp32"), image("bf16")
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, atol=0.1, rtol=0.1)
    for has_instructions, expected in ((True, half), (False, full)):
        known = {"avx512_bf16": has_instructions}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert torch.equal(image("auto"), expected)
