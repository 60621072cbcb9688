import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.loader import main, photograph, table_row
from training.data.writer import png_bytes


def test_pictures_are_as_hard_to_compress_as_photographs():
    picture = photograph(128, np.random.default_rng(0))
    assert 8 < 8 * len(png_bytes(picture)) / 128**2 < 20  # bits per pixel, of at most 24
    assert np.asarray(picture).std() > 30


def test_every_case_is_measured_and_written(tmp_path):
    file = tmp_path / "numbers.json"
    arguments = ["--resolution", "32", "--workers", "0,1", "--images", "32", "--repeats", "1"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(file)])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(file.read_text())["rows"]
    cases = [(case["source"], case["workers"]) for case in row["rates"]]
    assert cases == [("zip", 0), ("zip", 1), ("folder", 0), ("folder", 1)]
    assert row["decode"] > 0 and row["load"] > 0
    assert all(case["rate"] > 0 for case in row["rates"])
    assert "| 32 |" in result.output and "(1.00x)" in result.output


@pytest.mark.parametrize(("rate", "needed"), [(100, "1 (8 in all)"), (101, "2 (16 in all)")])
def test_workers_are_counted_by_what_one_core_loads(rate, needed):
    timed = [{"source": "zip", "workers": 0, "rate": 50}]
    row = {"resolution": 64, "kilobytes": 10, "decode": 120, "load": 100, "rates": timed}
    assert table_row(row, gpus=8, rate=rate)[-1] == needed
