"""estimate_poses.py: labels in the ecosystem's format, of which the data set reader approves."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dnnlib import UserError
from estimate_poses import main
from tests.helpers import tiny_config, write_photographs
from training.data.archive import DatasetArchive
from training.data.dataset import ImageDataset
from training.data.labels import read_labels
from training.files.network import Network
from training.files.network_file import save_network
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator


@pytest.fixture
def made(tmp_path):
    photographs = write_photographs(tmp_path / "photographs", count=20)
    torch.manual_seed(0)
    config = tiny_config(photographs)
    generator, discriminator = Generator(config), Discriminator(config)
    discriminator.b4.cam_out2.bias.data += 1.5
    save_network(tmp_path / "network.safetensors", generator, discriminator, {})
    save_network(tmp_path / "lonely.safetensors", generator, None, {})
    return SimpleNamespace(
        folder=tmp_path,
        photographs=photographs,
        generator=generator,
        discriminator=discriminator.eval(),
    )


def estimate(made, *, network="network.safetensors", data=None, dest=None):
    return CliRunner().invoke(
        main,
        ["--network", str(made.folder / network), "--data", str(data or made.photographs)]
        + ["--dest", str(dest or made.folder / "estimated.json"), "--device", "cpu"],
    )


def test_labels_are_the_cameras_that_the_discriminator_sees(made):
    done = estimate(made)
    assert done.exit_code == 0, done.output
    labels = dict(json.loads((made.folder / "estimated.json").read_text())["labels"])
    assert sorted(labels) == sorted(path.name for path in made.photographs.iterdir())
    first = sorted(labels)[:16]  # one batch, among which the discriminator compares
    pixels = np.stack([np.array(Image.open(made.photographs / name)) for name in first])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = made.generator.cam2world(made.discriminator(images).pose)
    found = torch.tensor([labels[name] for name in first])
    assert torch.allclose(found[:, :16].reshape(-1, 4, 4), expected, atol=1e-5)
    assert torch.allclose(found[0, 16:].reshape(3, 3), made.generator.intrinsics)
    assert found[:, :16].std(dim=0).max() > 1e-4  # they differ from image to image


def test_the_result_makes_a_posed_data_set(made):
    assert estimate(made, dest=made.photographs / "dataset.json").exit_code == 0
    labels = read_labels(DatasetArchive(made.photographs))
    assert not labels.faults and len(labels.cameras) == 20
    assert ImageDataset(made.photographs).all_intrinsics.shape == (20, 3, 3)


def one_line(done, message):
    assert done.exit_code == 1
    lines = [x for x in done.output.strip().splitlines() if x.startswith("Error:")]
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in done.output


def test_labels_that_exist_are_never_overwritten(made):
    (made.folder / "estimated.json").write_text("precious")
    one_line(estimate(made), "exists")
    assert (made.folder / "estimated.json").read_text() == "precious"


def test_mistakes_get_one_line_and_leave_no_file(made):
    one_line(estimate(made, network="lonely.safetensors"), "no discriminator")
    one_line(estimate(made, data=made.folder / "nowhere"), "no such data set")
    one_line(estimate(made, dest=made.folder / "no" / "where.json"), "no folder")
    Image.new("RGB", (32, 20)).save(made.photographs / "oblong.png")
    one_line(estimate(made), "oblong.png is 32 x 20")
    assert not (made.folder / "estimated.json").exists()


def test_destinations_are_checked_before_the_work(made, monkeypatch):
    (made.folder / "folder").mkdir()
    monkeypatch.setattr("training.files.network_file.load_network", None)  # not even loaded
    for dest in ("folder", "no/where.json", "network.safetensors/labels.json"):
        done = estimate(made, dest=made.folder / dest)
        assert done.exit_code == 1 and done.output.count("Error:") == 1, done.output
        assert "Traceback" not in done.output


def test_a_run_folder_is_a_network(made):
    (made.folder / "network.safetensors").rename(made.folder / "network-000001.00.safetensors")
    assert estimate(made, network=".").exit_code == 0


def test_dual_discrimination_has_its_raw_images(tmp_path):
    """It judges an image beside its raw rendering, of the generator's present resolution."""
    torch.manual_seed(0)
    changes = {"discriminator__dual": True, "data__resolution": 128}
    config = tiny_config(**changes, rendering__raw_resolution=16, rendering__raw_resolution_end=32)
    network = Network(Generator(config), Discriminator(config).eval(), config, {})
    network.generator.raw_resolution = 24
    pixels = torch.randint(0, 256, (4, 3, 128, 128), dtype=torch.uint8)
    images = pixels / 127.5 - 1
    raw = torch.nn.functional.interpolate(images, size=24, mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = network.discriminator(images, raw).pose
    torch.testing.assert_close(network.estimate_pose(pixels), expected)
    torch.testing.assert_close(network.estimate_pose(images), expected)
    assert not torch.equal(network.discriminator.estimate_pose(images), expected)  # 16, at first
    with pytest.raises(UserError, match=r"this network takes \[B, 3, 128, 128\]"):
        network.estimate_pose(images[..., ::2, ::2])
