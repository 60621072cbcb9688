"""Moments, and a cache that is never trusted blindly."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from metrics import statistics
from metrics.statistics import Moments, cached_on_disk, content_hash


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "metrics"


def test_streamed_moments_are_those_of_all_rows_together():
    rows = torch.randn(1000, 7, generator=torch.Generator().manual_seed(0)) + 5
    moments = Moments.empty(7)
    for part in rows.split(77):
        moments.add(part)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, rows.double().mean(dim=0), rtol=1e-12)
    expected = np.cov(rows.double().numpy().T, bias=True)
    np.testing.assert_allclose(moments.covariance, expected, rtol=1e-10, atol=1e-12)


def test_moments_of_many_rows_keep_their_digits():
    """Sums of 100 000 float32 would not."""
    rows = torch.full((100_000, 1), 0.1)
    assert Moments.of(rows).mean.item() == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert abs(Moments.of(rows).covariance.item()) < 1e-12


class Computation:
    """Counts how often it runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self):
        self.runs += 1
        return {"values": np.arange(1000.0)}


def test_cached_statistics_are_computed_once_for_each_key(own_cache):
    compute = Computation()
    first, again = (cached_on_disk("a", compute) for _ in range(2))
    assert compute.runs == 1 and np.array_equal(first["values"], again["values"])
    cached_on_disk("b", compute)
    assert compute.runs == 2 and len(list(own_cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty"])
def test_damaged_cache_is_rebuilt(own_cache, damage):
    compute = Computation()
    cached_on_disk("a", compute)
    (path,) = own_cache.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    damaged = {"truncated": data[:500], "flipped": data, "text": b"hello", "empty": b""}[damage]
    path.write_bytes(damaged)
    assert np.array_equal(cached_on_disk("a", compute)["values"], np.arange(1000.0))
    assert compute.runs == 2
    cached_on_disk("a", compute)
    assert compute.runs == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(monkeypatch, capsys):
    def full_disk(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(statistics, "atomic_write", full_disk)
    assert len(cached_on_disk("a", Computation())["values"]) == 1000
    captured = capsys.readouterr()
    assert captured.out == "" and "No space left" in captured.err


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_content_hash_sees_content_and_nothing_else(tmp_path):
    files = {"a/x.png": b"one", "a/y.png": b"two"}
    folder = write_files(tmp_path / "folder", files)
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in reversed(files.items()):
            archive.writestr(name, data)
    assert content_hash(folder) == content_hash(packed)
    moved = folder.rename(tmp_path / "moved")
    assert content_hash(moved) == content_hash(packed)
    (moved / "a/x.png").write_bytes(b"One")
    assert content_hash(moved) != content_hash(packed)


def test_content_hash_follows_links_once_and_waits_for_no_pipe(tmp_path):
    folder = write_files(tmp_path / "folder", {"a.png": b"one"})
    elsewhere = write_files(tmp_path / "elsewhere", {"b.png": b"two"})
    plain = content_hash(folder)
    (folder / ".#lock").symlink_to("user@host.1:2")
    os.mkfifo(folder / "pipe")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    linked = content_hash(folder)
    assert linked != plain and content_hash(folder) == linked
    (elsewhere / "b.png").write_bytes(b"three")
    assert content_hash(folder) != linked
