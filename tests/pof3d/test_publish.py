import json

import pytest
import torch
from click.testing import CliRunner

from pof3d.commands.publish import main
from tests.helpers import tiny_config
from training.files.network_file import load_network, save_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator


def publish(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_published_network_is_half_the_size_draws_the_same_and_keeps_its_provenance(tmp_path):
    torch.manual_seed(0)
    config = tiny_config(tmp_path / "secret" / "photos.zip")
    generator, discriminator = Generator(config).eval(), Discriminator(config)
    network, dest = tmp_path / "network-000001.00.safetensors", tmp_path / "toy.safetensors"
    save_network(network, generator, discriminator, {"kimg": 1.0, "seed": 1})
    for name, value in (("network-000001.00", 3.0), ("network-000000.50", 9.0)):
        line = {"results": {"relief": value}, "snapshot_pkl": f"{name}.safetensors"}
        with open(tmp_path / "metric-relief.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    result = publish("--network", network, "--dest", dest, "--note", "machine=two cores")
    assert result.exit_code == 0, result.output
    assert dest.stat().st_size < 0.65 * network.stat().st_size
    loaded = load_network(dest)
    expected = {"kimg": 1.0, "seed": 1, "machine": "two cores", "metrics": {"relief": 3.0}}
    assert loaded.provenance == expected
    assert loaded.config.data.path is None and b"secret" not in dest.read_bytes()
    z = torch.randn(2, config.generator.z_dim)
    with torch.no_grad():
        torch.testing.assert_close(loaded.generator(z).image, generator(z).image, atol=0.02, rtol=0)
    assert next(loaded.generator.parameters()).dtype == torch.float32


@pytest.mark.parametrize("dest", ["no/folder/toy.safetensors", "folder"])
def test_destinations_are_checked_before_the_work(dest, tmp_path):
    (tmp_path / "folder").mkdir()
    result = publish("--network", tmp_path / "absent", "--dest", tmp_path / dest)
    assert result.exit_code == 1 and result.output.startswith("Error: --dest")


def test_a_run_folder_is_published_with_its_metrics(tmp_path):
    config = tiny_config()
    for kimg in ("000000.50", "000001.00"):
        save_network(tmp_path / f"network-{kimg}.safetensors", Generator(config), None, {})
    line = {"results": {"relief": 3.0}, "snapshot_pkl": "network-000001.00.safetensors"}
    (tmp_path / "metric-relief.jsonl").write_text(json.dumps(line) + "\n")
    result = publish("--network", tmp_path, "--dest", tmp_path / "toy.safetensors")
    assert result.exit_code == 0, result.output
    assert load_network(tmp_path / "toy.safetensors").provenance["metrics"] == {"relief": 3.0}


@pytest.mark.parametrize("note", ["machine", ""])
def test_notes_need_a_key(note, tmp_path):
    result = publish("--network", tmp_path / "x", "--dest", tmp_path / "y", "--note", note)
    assert result.exit_code != 0 and "KEY=VALUE" in result.output
