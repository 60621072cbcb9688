"""Agreement of GeoD with the published implementation, and what the check says of altered files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests import parity, parity_geod

DATA = Path(__file__).parent / "data" / "geod"
SLOW = ("geod_full_seed0.npz", "geod_endtoend_seed0.npz")
FILES = [
    pytest.param(path, id=path.name, marks=pytest.mark.slow if path.name in SLOW else ())
    for path in sorted(DATA.glob("geod_*"))
]


@pytest.mark.parametrize("path", FILES)
def test_agrees_with_the_reference(path):
    quantities = list(parity_geod.check_file(path))
    assert quantities
    assert not [str(quantity) for quantity in quantities if not quantity.ok]


def test_every_kind_of_file_is_there():
    for start in (*parity_geod.CHECKS, "geod_schedule", "geod_legacy"):
        assert list(DATA.glob(f"{start}*")), start


def altered(directory: Path, name: str, changes: dict) -> Path:
    """A file with some arrays changed, {key: function of the array}, or left out, {key: None}."""
    target = directory / name
    with np.load(DATA / name) as file:
        arrays = {key: file[key] for key in file.files if changes.get(key, True)}
    arrays |= {key: change(arrays.get(key)) for key, change in changes.items() if change}
    np.savez(target, **arrays)
    return target


def misses(path: Path) -> list[str]:
    return [quantity.name for quantity in parity_geod.check_file(path) if not quantity.ok]


@pytest.mark.parametrize(
    "key, factor", [("yaws", 1.00001), ("grad/grid/view", 1.0001), ("warped_normal", 1.00001)]
)
def test_an_altered_quantity_is_a_miss(tmp_path, key, factor):
    path = altered(tmp_path, "geod_formation_seed0.npz", {key: lambda x: x * factor})
    assert misses(path) == [key]


def test_a_quantity_left_out_is_not_asked_for_and_an_unknown_one_is_a_miss(tmp_path):
    name = "geod_formation_seed0.npz"
    assert not misses(altered(tmp_path, name, {"yaws": None}))
    (miss,) = misses(altered(tmp_path, name, {"novelty": lambda _: np.zeros(3)}))
    assert "no check knows" in miss and "novelty" in miss


def test_the_seed_is_that_of_the_name(tmp_path):
    """Parameters follow from it, so under another name nearly all of them differ."""
    path = tmp_path / "geod_small_params_seed1.npz"
    shutil.copy(DATA / "geod_small_params_seed0.npz", path)
    with np.load(path) as file:
        assert len(misses(path)) == len(file.files)


def test_the_schedule_is_checked_row_by_row(tmp_path):
    stored = json.loads((DATA / "geod_schedule.json").read_text())
    row = next(row for row in stored["rows"] if row[3])
    row[3] *= 1.001
    path = tmp_path / "geod_schedule.json"
    path.write_text(json.dumps(stored))
    (miss,) = misses(path)
    assert miss.startswith(f"setting {row[0]},")


def run(directory: Path):
    return CliRunner().invoke(parity.main, [str(directory)])


def test_the_command_prints_a_line_per_quantity_and_its_status_tells_misses(tmp_path):
    shutil.copy(DATA / "geod_schedule.json", tmp_path)
    result = run(tmp_path)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "5 quantities, 0 missed"
    altered(tmp_path, "geod_small_params_seed0.npz", {"netC.out_net1.1.bias": lambda x: x + 1})
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "MISS" in result.output and "netC.out_net1.1.bias" in result.output


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"{}"])
@pytest.mark.parametrize(
    "name", ["geod_small_seed3.npz", "geod_legacy_ir.pkl.gz", "geod_schedule.json"]
)
def test_a_damaged_file_is_a_miss_of_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "cannot be checked" in result.output
    assert len(result.output.splitlines()) == 2
