"""Files that are whole or absent."""

import os
import stat
import tempfile

import pytest

from dnnlib import UserError, append_line, atomic_write, cache_dir, remove_leftovers


def test_atomic_write_replaces_the_file_at_once(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_leaves_nothing_of_a_failure(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half of")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_syncs_the_data_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def record(name, function):
        def call(*args):
            target = args[0] if name == "rename" else os.readlink(f"/proc/self/fd/{args[0]}")
            done.append((name, os.path.isdir(target)))
            return function(*args)

        return call

    monkeypatch.setattr(os, "fsync", record("sync", fsync))
    monkeypatch.setattr(os, "replace", record("rename", replace))
    with atomic_write(tmp_path / "file.txt") as temporary:
        temporary.write_text("data")
    assert done == [("sync", False), ("rename", False), ("sync", True)]


def test_atomic_write_gives_the_permissions_of_any_new_file(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file.txt"):
            pass
    finally:
        assert os.umask(old) == 0o027
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


def test_remove_leftovers_takes_nothing_else(tmp_path):
    (tmp_path / "wanted.tmp").write_text("")
    (tmp_path / ".hidden").write_text("")
    leftover = None
    with atomic_write(tmp_path / "file.txt") as temporary:
        leftover = temporary.rename(temporary.with_name(temporary.name.replace("file", "lost")))
        temporary.write_text("")
    remove_leftovers(tmp_path)
    assert not leftover.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"wanted.tmp", ".hidden", "file.txt"}


def test_append_line_makes_the_file_and_goes_on(tmp_path):
    for line in ("first", "zweite Zeile ±", "caf\udce9"):
        append_line(tmp_path / "log.txt", line)
    assert (tmp_path / "log.txt").read_text() == "first\nzweite Zeile ±\ncaf\\udce9\n"


def test_append_line_takes_back_half_a_line(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "log.txt"
    append_line(path, "first")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_line(path, "second, which is too long")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_cache_dir_obeys_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("POF3D_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir("a", "b") == tmp_path / "xdg" / "pof3d" / "a" / "b"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "pof3d"
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path / "chosen"))
    assert cache_dir("a").is_dir() and cache_dir("a") == tmp_path / "chosen" / "a"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set POF3D_CACHE_DIR to a folder you can write to"):
        cache_dir("a")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "file.txt"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"), atomic_write(path) as temporary:
            temporary.write_text("more than the disk has room for")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_atomic_write_takes_the_longest_names(tmp_path):
    path = tmp_path / ("ä" * 125 + ".txt")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """Neither a home nor a choice; temporary files are in tmp_path."""
    monkeypatch.setenv("POF3D_CACHE_DIR", "")  # put back afterwards, whatever is set meanwhile
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["no such user"])
    return tmp_path / f"pof3d-{os.getuid()}"


def test_without_a_home_the_cache_is_a_private_temporary_folder(homeless, capfd):
    assert cache_dir("a") == homeless / "a"
    cache_dir("b")
    assert stat.S_IMODE(homeless.stat().st_mode) == 0o700
    warning = capfd.readouterr().err
    assert warning.count("WARNING") == 1 and str(homeless) in warning
    assert (homeless / "a").is_dir() and (homeless / "b").is_dir()


def test_a_home_that_cannot_be_written_to_is_none(homeless, monkeypatch):
    homeless.with_name("file").write_text("")
    monkeypatch.setenv("HOME", str(homeless.with_name("file")))
    assert cache_dir() == homeless


def test_a_cache_that_others_can_write_to_is_refused(homeless):
    homeless.mkdir()
    homeless.chmod(0o777)
    with pytest.raises(UserError, match="another user's: set POF3D_CACHE_DIR"):
        cache_dir()
