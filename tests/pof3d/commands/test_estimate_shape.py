"""Shapes of photographs from the command line."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import trimesh
from click.testing import CliRunner
from PIL import Image

from pof3d.commands.estimate_shape import main
from tests.helpers import write_photographs

LEGACY = Path(__file__).parents[2] / "data" / "geod" / "geod_legacy_ir.pkl.gz"


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(gzip.decompress(LEGACY.read_bytes()))
    return path


def run(network, data, outdir):
    options = ["--network", str(network), "--data", str(data), "--outdir", str(outdir)]
    return CliRunner().invoke(main, options)


def test_writes_a_picture_and_a_mesh_of_each_photograph(tmp_path, network):
    data = write_photographs(tmp_path / "photographs", count=2)
    (data / "sub").mkdir()
    Image.new("RGB", (50, 80), "red").save(data / "sub" / "tall.bmp")
    result = run(network, data, tmp_path / "new" / "out")
    assert result.exit_code == 0, result.output
    out = tmp_path / "new" / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {
        f"{name}.{kind}" for name in ("000", "001", "sub-tall") for kind in ("png", "ply")
    }
    with Image.open(out / "sub-tall.png") as picture:
        assert picture.size == (8 * 64, 64)
        assert np.array(picture)[32, 32].tolist() == [255, 0, 0]  # the photograph comes first
    mesh = trimesh.load(out / "000.ply", process=False)
    assert len(mesh.vertices) == 60 * 64 and len(mesh.faces) == 2 * 59 * 63


def test_refuses_to_overwrite_and_to_mix_up(tmp_path, network):
    data = write_photographs(tmp_path / "photographs", count=1)
    assert run(network, data, tmp_path / "out").exit_code == 0
    again = run(network, data, tmp_path / "out")
    assert again.exit_code and "exists" in again.output and len(again.output.splitlines()) == 1
    with Image.open(data / "000.png") as image:
        image.convert("RGB").save(data / "000.jpg")
    twice = run(network, data, tmp_path / "other")
    assert twice.exit_code and "two photographs" in twice.output
    assert not (tmp_path / "other").exists()


def test_refuses_a_folder_that_is_a_file(tmp_path, network):
    data = write_photographs(tmp_path / "photographs", count=1)
    (tmp_path / "out").write_text("")
    result = run(network, data, tmp_path / "out")
    assert result.exit_code and len(result.output.splitlines()) == 1 and "--outdir" in result.output


def test_refuses_a_file_without_an_inverse_renderer(tmp_path):
    data = write_photographs(tmp_path / "photographs", count=1)
    (tmp_path / "network.pkl").write_bytes(b"\x80\x02}q\x00.")
    result = run(tmp_path / "network.pkl", data, tmp_path / "out")
    assert result.exit_code and len(result.output.splitlines()) == 1
    assert "GeoD" in result.output and not (tmp_path / "out").exists()
