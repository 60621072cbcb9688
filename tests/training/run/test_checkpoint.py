"""Network files and training checkpoints: what they hold, and how bad ones are refused."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from dnnlib import UserError, code_version
from tests.helpers import (
    DUAL,
    small_config,
    small_discriminator,
    small_generator,
    tiny_config,
    write_photographs,
)
from training.files.network_file import load_network, save_network
from training.files.transfer import start_from
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.networks.layers import upsample2x
from training.run import checkpoint
from training.run.checkpoint import load_checkpoint, load_newest, save_checkpoint
from training.run.loop import open_dataset, train
from training.step import Trainer

PROVENANCE = {"kimg": 12.8, "data": "heads", "seed": 0, "code": "1a2b3c", "torch": "2.9.1"}


@pytest.fixture(scope="module")
def networks() -> tuple[Generator, Discriminator]:
    generator, discriminator = small_generator(), small_discriminator()
    generator.mapping.w_avg.normal_()
    return generator, discriminator


@pytest.fixture
def path(networks, tmp_path) -> Path:
    save_network(tmp_path / "network.safetensors", *networks, PROVENANCE)
    return tmp_path / "network.safetensors"


def metadata_of(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def rewrite(path: Path, tensors: dict | None = None, **metadata: str | None) -> None:
    """Replace some tensors and entries of the metadata; None leaves them out."""
    new = {**safetensors.torch.load_file(path), **(tensors or {})}
    described = metadata_of(path) | metadata
    safetensors.torch.save_file(
        {name: tensor for name, tensor in new.items() if tensor is not None},
        path,
        {key: value for key, value in described.items() if value is not None},
    )


# Network files


def test_a_network_comes_back_as_it_was(networks, path):
    loaded = load_network(path)
    assert loaded.provenance == PROVENANCE
    assert loaded.config == networks[0].config
    for network, found in zip(networks, (loaded.generator, loaded.discriminator), strict=True):
        expected = network.state_dict()
        assert found.state_dict().keys() == expected.keys()
        assert all(torch.equal(found.state_dict()[name], expected[name]) for name in expected)
        assert not found.training and not any(p.requires_grad for p in found.parameters())
    z = torch.randn(2, 16)
    assert torch.equal(loaded.generator(z).image, networks[0](z).image)


def test_what_the_file_says_of_itself(path):
    metadata = metadata_of(path)
    assert metadata["format"] == "pof3d-network" and metadata["format_version"] == "1"
    assert json.loads(metadata["config"])["data"]["resolution"] == 32
    assert json.loads(metadata["provenance"]) == PROVENANCE
    prefixes = {name.split(".")[0] for name in safetensors.torch.load_file(path)}
    assert prefixes == {"G_ema", "D"}


def test_a_generator_alone_and_its_raw_resolution(tmp_path):
    generator = small_generator(DUAL)
    generator.raw_resolution = 24  # it may have grown
    save_network(tmp_path / "g.safetensors", generator, None, {})
    loaded = load_network(tmp_path / "g.safetensors")
    assert loaded.discriminator is None
    assert loaded.generator(torch.randn(1, 16)).raw.shape[-1] == 24


def test_half_precision_halves_the_file(networks, path, tmp_path):
    half = tmp_path / "half.safetensors"
    save_network(half, *networks, PROVENANCE, dtype=torch.float16)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    found, expected = load_network(half).generator, networks[0]
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    for parameter, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(parameter, other.half().float())
    z = torch.randn(2, 16)
    torch.testing.assert_close(found(z).image, expected(z).image, atol=0.02, rtol=0)


BROKEN = {
    "newer": ({"format_version": "2"}, "has format version 2: update this code, which reads 1"),
    "other program's": ({"format": "pt"}, "is a safetensors file, but not one of PoF3D's"),
    "no version": ({"format_version": None}, "lacks 'format_version' in its metadata"),
    "strange version": ({"format_version": "new"}, "'format_version' in its metadata cannot be"),
    "no config": ({"config": None}, "lacks 'config' in its metadata"),
    "config is not JSON": ({"config": "{"}, "'config' in its metadata cannot be read .Expecting"),
    "config is a list": ({"config": "[1]"}, "'config' in its metadata cannot be read"),
    "config is deep": ({"config": "[" * 10**5}, "'config' in its metadata cannot be read"),
    "unknown setting": ({"config": '{"zoom": 3}'}, "'config' in its .*zoom: Extra inputs"),
    "no provenance": ({"provenance": None}, "lacks 'provenance'"),
    "strange provenance": ({"provenance": "me"}, "'provenance' in its metadata cannot be read"),
    "strange raw resolution": ({"raw_resolution": "x"}, "'raw_resolution' in its metadata cannot"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_bad_metadata_is_one_line(path, how):
    metadata, message = BROKEN[how]
    rewrite(path, **metadata)
    with pytest.raises(UserError, match=message) as caught:
        load_network(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["G_ema.decoder.net.0.weight", "D.b4.fc.bias"])
def test_a_missing_or_misshapen_tensor_is_named(path, name):
    rewrite(path, {name: torch.zeros(3, 5)})
    with pytest.raises(UserError, match=rf"tensor {name} has shape \[3, 5\], not \["):
        load_network(path)
    rewrite(path, {name: None})
    with pytest.raises(UserError, match=f"lacks the tensor {name}"):
        load_network(path)


def test_what_is_no_network_file_is_one_line(path, tmp_path):
    data = path.read_bytes()
    contents = {
        "cut off": data[: len(data) // 2],
        "header cut off": data[:100],
        "length without end": b"\xff" * 8 + data[8:],
        "length of 2 GB": (2**31).to_bytes(8, "little") + data[8:],
        "text": b"weights, honestly" * 100,
    }
    for name, content in contents.items():
        bad = tmp_path / f"{name}.safetensors"
        bad.write_bytes(content)
        with pytest.raises(UserError, match="is not a readable network file") as caught:
            load_network(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="does not exist"):
        load_network(tmp_path / "missing.safetensors")


def test_nothing_is_lost_when_a_network_cannot_be_written(networks, path, monkeypatch):
    before = path.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_network(path, *networks, {})
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


# Starting from weights


def test_start_from_copies_both_networks(networks, path):
    generator, discriminator = small_generator(seed=1), small_discriminator(seed=1)
    start_from(path, generator, discriminator)
    for network, expected in zip((generator, discriminator), networks, strict=True):
        found = network.state_dict()
        assert all(torch.equal(found[key], x) for key, x in expected.state_dict().items())
        assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    "change, needed",
    [
        ({"generator__w_dim": 24}, "generator.w_dim=16"),
        ({"rendering__plane_axes": "eg3d"}, "rendering.plane_axes=full"),
    ],
)
def test_start_from_other_sizes_or_axes_is_one_line(path, change, needed):
    other = small_generator(**change), small_discriminator()
    with pytest.raises(UserError, match=f"other sizes or axes.*: add --set {needed}$"):
        start_from(path, *other)


def test_all_settings_that_are_needed_are_named_at_once(path):
    changes = {"rendering__box_warp": 2.0, "generator__z_dim": 8, "generator__plane_channels": 8}
    other = small_generator(**changes), small_discriminator()
    with pytest.raises(UserError) as caught:
        start_from(path, *other)
    for setting in ("rendering.box_warp=1.0", "generator.z_dim=16", "generator.plane_channels=4"):
        assert f"--set {setting}" in str(caught.value)


def test_an_eg3d_generator_lends_all_but_its_mapping(tmp_path):
    """It is conditioned on cameras that unposed images do not have; the pose head is new too."""
    given = small_generator(seed=3, camera__poses="given")
    save_network(tmp_path / "eg3d.safetensors", given, None, PROVENANCE)
    generator, discriminator = small_generator(seed=1), small_discriminator(seed=1)
    own = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    done = start_from(tmp_path / "eg3d.safetensors", generator, discriminator)
    assert "mapping network and pose head begin afresh" in done
    assert done.endswith("the discriminator begins afresh")
    for name, tensor in generator.state_dict().items():
        afresh = name.startswith("backbone.mapping.")
        assert torch.equal(tensor, own[name] if afresh else given.state_dict()[name]), name


@pytest.mark.parametrize(("theirs", "ours"), [(32, 64), (64, 32)])
def test_start_from_another_resolution(tmp_path, theirs, ours):
    """Layers of the discriminator that the file lacks stay as they were, and only those."""

    def networks_at(resolution, seed):
        sizes = {"data__resolution": resolution, "rendering__raw_resolution": resolution}
        return small_generator(seed=seed, **sizes), small_discriminator(seed=seed, **sizes)

    source, target = networks_at(theirs, 0), networks_at(ours, 1)
    save_network(tmp_path / "source.safetensors", *source, PROVENANCE)
    before = {name: tensor.clone() for name, tensor in target[1].state_dict().items()}
    done = start_from(tmp_path / "source.safetensors", *target)
    assert done.endswith("the discriminator begins afresh above 32 px")
    expected = [network.state_dict() for network in source]
    found = [network.state_dict() for network in target]
    assert all(torch.equal(tensor, expected[0][name]) for name, tensor in found[0].items())
    afresh = found[1].keys() - expected[1].keys()
    assert {name.rpartition(".")[0] for name in afresh} == (
        {"b64.fromrgb", "b64.conv0", "b64.conv1", "b64.skip"} if ours == 64 else {"b32.fromrgb"}
    )
    for name, tensor in found[1].items():
        assert torch.equal(tensor, before[name] if name in afresh else expected[1][name])


def test_finer_planes_begin_as_the_coarse_ones(tmp_path):
    """New blocks are there, add nothing yet, and learn."""
    coarse = small_generator(seed=0, generator__plane_resolution=16)
    save_network(tmp_path / "coarse.safetensors", coarse, small_discriminator(), PROVENANCE)
    fine = small_generator(seed=1, generator__plane_resolution=32)
    start_from(tmp_path / "coarse.safetensors", fine, small_discriminator())
    z = torch.randn(2, coarse.mapping.z_dim)
    before, planes = (g.planes(g.latent(z).ws, "none") for g in (coarse, fine))
    kernel = fine.backbone.synthesis.b32.resample_filter
    expected = upsample2x(before.flatten(1, 2), kernel)
    torch.testing.assert_close(planes.flatten(1, 2), expected)
    planes.square().sum().backward()
    assert fine.backbone.synthesis.b32.torgb.weight.grad.norm() > 0


def test_a_run_that_starts_from_weights(tmp_path, monkeypatch):
    """Adopts them in the networks and the average; counts from zero; says so."""
    photographs = write_photographs(tmp_path / "photographs")
    config = tiny_config(photographs, run__kimg=0.004)
    source = Trainer(
        tiny_config(photographs, run__seed=5), open_dataset(config), torch.device("cpu")
    )
    weights = tmp_path / "weights.safetensors"
    save_network(weights, source.averaged_generator, source.discriminator, {})
    seen = {}

    def step(trainer):
        trainer.steps += 1
        seen.update(trainer.averaged_generator.state_dict())

    monkeypatch.setattr(Trainer, "step", step)
    (tmp_path / "run").mkdir()
    train(config, tmp_path / "run", weights)
    assert f"starting from the weights of {weights}" in (tmp_path / "run" / "log.txt").read_text()
    expected = source.generator.state_dict()
    assert all(torch.equal(seen[name], expected[name]) for name in expected)
    (network,) = (tmp_path / "run").glob("network-*.safetensors")
    assert load_network(network).provenance == {
        "kimg": 0.004,
        "data": "photographs",
        "seed": 1,
        "code": code_version(),
        "torch": torch.__version__,
    }


# Training checkpoints

STATE = {"trainer": {"weights": torch.arange(1000.0), "steps": 3, "moments": [(1, 2.5), None]}}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    config = small_config()
    save_checkpoint(tmp_path / "a.pt", STATE, config)
    state = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(state["trainer"].pop("weights"), STATE["trainer"]["weights"])
    assert state["trainer"] == {"steps": 3, "moments": [(1, 2.5), None]}
    assert json.loads(state["config"]) == config.model_dump(mode="json")


def test_every_flipped_bit_of_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, STATE, small_config())
    data = path.read_bytes()
    start = data.index(STATE["trainer"]["weights"].numpy().tobytes())
    for offset in range(0, 4000, 397):
        flipped = bytearray(data)
        flipped[start + offset] ^= 1 << offset % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match="is damaged .wrong checksum"):
            load_checkpoint(path)


class Hostile:
    def __reduce__(self):
        return os.mkdir, (self.target,)

    def __init__(self, target: str):
        self.target = target


@pytest.mark.parametrize("plain", [True, False])
def test_nothing_in_a_checkpoint_is_executed(tmp_path, plain):
    path, target = tmp_path / "a.pt", tmp_path / "was here"
    if plain:
        path.write_bytes(pickle.dumps(Hostile(str(target))))
    else:
        torch.save({"format": "pof3d-training", "trainer": Hostile(str(target))}, path)
        assert zipfile.is_zipfile(path)
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(path)
    assert not target.exists()


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    paths = [tmp_path / name for name in "cba"]
    for path in paths[1:]:
        save_checkpoint(path, STATE, small_config())
    paths[0].write_bytes(b"")
    found = load_newest(paths)
    assert found.path == paths[1] and found.state["trainer"]["steps"] == 3
    (fault,) = found.faults
    assert str(paths[0]) in fault and "is damaged" in fault
    with pytest.raises(UserError, match="is damaged.*no checkpoint is left: start the run anew"):
        load_newest(paths[:1])


def test_a_checkpoint_of_newer_code_is_not_passed_over(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a", STATE, small_config())
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 2)
    save_checkpoint(tmp_path / "b", STATE, small_config())
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 1)
    with pytest.raises(UserError, match="b has format version 2: update this code"):
        load_newest([tmp_path / "b", tmp_path / "a"])
