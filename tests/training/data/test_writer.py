import fcntl
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dnnlib import UserError
from tests.helpers import PATIENCE
from training.data.writer import dataset_writer, png_bytes


def test_written_zip_is_whole_or_absent(tmp_path):
    with pytest.raises(RuntimeError), dataset_writer(tmp_path / "set.zip") as writer:
        writer.add_image(b"")
        raise RuntimeError("power cut")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="there is no folder"), dataset_writer(tmp_path / "a" / "b"):
        pass


def test_written_images_are_stored_and_named_in_order(tmp_path):
    with dataset_writer(tmp_path / "set.zip") as writer:
        names = [writer.add_image(png_bytes(Image.new("L", (1, 1)))) for _ in range(1002)]
    assert (names[0], names[1001]) == ("00000/img00000000.png", "00001/img00001001.png")
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert Image.open(io.BytesIO(archive.read(names[5]))).format == "PNG"


def leftover(dest: Path, age: float) -> Path:
    path = dest.with_name(f".{dest.name}.abc123.tmp")
    path.write_bytes(b"half a zip")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_a_killed_writer_left_the_next_one_removes(tmp_path):
    dest = tmp_path / "set.zip"
    old, other = leftover(dest, 3600), leftover(tmp_path / "other.zip", 3600)
    with dataset_writer(dest):
        assert not old.exists() and other.exists()


def test_a_temporary_file_in_use_is_left_alone(tmp_path):
    dest = tmp_path / "set.zip"
    used = leftover(dest, 3600)
    with open(used, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with dataset_writer(dest):
            pass
    assert used.exists()
    with dataset_writer(dest):
        assert not used.exists()
        (own,) = tmp_path.glob(".*.tmp")
        os.utime(own, (0, 0))
        with dataset_writer(dest):
            assert own.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_writer_leaves_nothing(tmp_path, number):
    code = (
        "import sys, time; from training.data.writer import dataset_writer\n"
        "with dataset_writer(sys.argv[1]) as writer:\n"
        "    writer.add_image(b'x'); print('begun', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, tmp_path / "set.zip"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n" and [*tmp_path.iterdir()]
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number and process.stderr.read() == b""
    assert not [*tmp_path.iterdir()]


def test_signals_are_as_before_afterwards(tmp_path):
    with dataset_writer(tmp_path / "set.zip"):
        pass
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_folder_in_the_way_is_named_before_any_work(tmp_path):
    (tmp_path / "set.zip").mkdir()
    with (
        pytest.raises(UserError, match="a folder has this name"),
        dataset_writer(tmp_path / "set.zip"),
    ):
        pytest.fail("work has begun")


def test_a_full_disk_is_the_writers_error_and_a_closed_pipe_is_not(tmp_path, monkeypatch):
    with pytest.raises(BrokenPipeError), dataset_writer(tmp_path / "set.zip"):
        raise BrokenPipeError(32, "Broken pipe")

    def full(*_):
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(UserError, match="cannot write .*set.zip: No space left"),
        dataset_writer(tmp_path / "set.zip") as writer,
    ):
        monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
        writer.add_image(b"")
    assert not [*tmp_path.iterdir()]
