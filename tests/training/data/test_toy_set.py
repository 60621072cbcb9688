import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib import UserError
from training.cameras import cam2world_from_pose, orbit
from training.data import toy_heads as toy
from training.data import toy_set
from training.data.ground_truth import load_ground_truth
from training.data.toy_set import make_toy_dataset, toy_dataset_path


def head(seed: int) -> toy.Head:
    return toy.Head.random(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def toy_zip(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.zip"
    make_toy_dataset(path, count=40, resolution=32, seed=7, progress=False)
    return path


def test_zip_holds_unposed_images_and_the_truth(toy_zip):
    with zipfile.ZipFile(toy_zip) as archive:
        names = archive.namelist()
        image = Image.open(io.BytesIO(archive.read("00000/img00000005.png")))
    assert len(names) == 41 and "dataset.json" not in names
    truth = load_ground_truth(toy_zip)
    assert truth.pose.shape == (40, 2) and truth.depth.shape == (40, 32, 32)
    assert len(set(truth.identity.tolist())) == 40
    assert np.isfinite(truth.depth).all() and truth.depth.max() == np.float16(toy.BACKGROUND_DEPTH)

    again = toy.render_head(head(truth.identity[5]), torch.tensor(truth.cam2world[5:6]), 32)
    difference = np.asarray(image).transpose(2, 0, 1) - again.image[0].numpy().astype(int)
    assert np.abs(difference).mean() < 0.05
    expected = cam2world_from_pose(torch.tensor(truth.pose), 2.7, (0, 0, 0))
    np.testing.assert_allclose(truth.cam2world, expected, atol=1e-6)


def test_turned_photographs_show_one_head_from_cameras_that_orbit_it(toy_zip, tmp_path):
    make_toy_dataset(tmp_path / "turned.zip", 4, 32, seed=7, progress=False, turns=(0, 30))
    plain, turned = load_ground_truth(toy_zip), load_ground_truth(tmp_path / "turned.zip")
    assert turned.identity.tolist() == plain.identity[:2].repeat(2).tolist()
    cameras = torch.tensor(turned.cam2world)
    np.testing.assert_array_equal(cameras[::2], plain.cam2world[:2])
    torch.testing.assert_close(cameras[1::2], orbit(cameras[::2], 30, toy.PIVOT))
    expected = cam2world_from_pose(torch.tensor(turned.pose), 2.7, (0, 0, 0))
    np.testing.assert_allclose(cameras, expected, atol=1e-6)


def test_bytes_depend_on_the_seed_and_not_on_the_number_of_processes(
    toy_zip, tmp_path, monkeypatch
):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    make_toy_dataset(tmp_path / "same.zip", 40, 32, seed=7, progress=False)
    make_toy_dataset(tmp_path / "other.zip", 40, 32, seed=8, progress=False)
    assert (tmp_path / "same.zip").read_bytes() == toy_zip.read_bytes()
    assert (tmp_path / "other.zip").read_bytes() != toy_zip.read_bytes()


def test_cached_set_is_made_once_even_by_two_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path))
    code = "from training.data import toy_set; print(toy_set.toy_dataset_path(16, count=20))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in "ab"]
    paths = {process.communicate(timeout=60)[0].decode().strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    path = toy_dataset_path(16, count=20)
    assert paths == {str(path)} and [*path.parent.iterdir()] == [path]
    assert len(load_ground_truth(path).pose) == 20

    made = path.stat().st_mtime_ns
    assert toy_dataset_path(16, count=20).stat().st_mtime_ns == made


def test_truth_of_a_set_without_any_is_a_user_error(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="has no ground_truth.npz"):
        load_ground_truth(tmp_path)


@pytest.mark.slow
def test_ten_thousand_images_take_less_than_four_minutes_of_processor_time(tmp_path):
    def used() -> float:
        usage = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return sum(u.ru_utime + u.ru_stime for u in usage)

    before = used()
    make_toy_dataset(tmp_path / "toy.zip", 1000, 64, seed=0, progress=False)
    assert used() - before < 24


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4"])
def test_broken_truth_is_named(tmp_path, content):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "ground_truth.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot read ground_truth.npz"):
        load_ground_truth(tmp_path)


def kill_process_five(index: int, **_) -> None:
    if index == 5:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_set, "_photograph", kill_process_five)
    with pytest.raises(UserError, match="was killed"):
        make_toy_dataset(tmp_path / "toy.zip", 8, 16, seed=0)
    assert not [*tmp_path.iterdir()]


def test_waiting_processes_do_not_make_the_set_again(tmp_path, monkeypatch):
    """As the ranks of a run do, which all ask for it at once."""
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path))
    made = []

    def make(path: Path, *_, **__) -> None:
        made.append(path)
        time.sleep(0.3)
        path.write_bytes(b"made")

    monkeypatch.setattr(toy_set, "make_toy_dataset", make)
    threads = [threading.Thread(target=toy_dataset_path, args=(16,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1 and made[0].read_bytes() == b"made"


def test_log_files_get_no_progress_bar(tmp_path, capfd):
    make_toy_dataset(tmp_path / "toy.zip", 4, 16, seed=0)
    assert capfd.readouterr() == ("", "")
