"""Destinations are looked at before the work; what goes wrong is one line and leaves no file."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dnnlib import UserError, check_destination, write_destination


def test_a_good_destination_is_left_alone(tmp_path):
    (tmp_path / "old.json").write_text("old")
    check_destination(tmp_path / "old.json")
    check_destination(tmp_path / "new.json")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"old.json": "old"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone/a.json", "there is no folder"), ("folder", "is not a file"), ("pipe", "is not a file")],
)
def test_impossible_destinations_are_said(name, message, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=f"NEW .*{message}"):
        check_destination(tmp_path / name, "NEW")


def test_devices_are_not_replaced():
    with pytest.raises(UserError, match="is not a file"):
        check_destination(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_full_disk_is_found_beforehand(tmp_path):
    """A limit on the size of files stands in for the disk."""
    code = (
        "import resource, signal, sys, pathlib, dnnlib\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "try: dnnlib.check_destination(pathlib.Path(sys.argv[1]))\n"
        "except dnnlib.UserError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True
    )
    assert done.stdout.startswith(f"cannot write --dest {tmp_path / 'a'}: "), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="cannot write --dest .*: No space left"):
        with write_destination(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())
