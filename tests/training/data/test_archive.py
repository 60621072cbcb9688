import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dnnlib import UserError
from tests.training.data.numbered import save_numbered
from training.data.archive import DatasetArchive, UnreadableError, refuse_inside


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, format="png")
    return path


def test_linked_folders_and_files_belong_to_the_set(tmp_path):
    picture(tmp_path / "elsewhere" / "deep" / "a.png")
    single = picture(tmp_path / "single.png")
    root = tmp_path / "set"
    root.mkdir()
    (root / "linked").symlink_to("../elsewhere")
    (root / "b.png").symlink_to(single)
    archive = DatasetArchive(root)
    assert archive.image_names() == ["b.png", "linked/deep/a.png"] and archive.notes == []
    assert archive.read_image("linked/deep/a.png").size == (8, 8)


@pytest.mark.parametrize("target", [".", "..", "/", "../set", "inner"])
def test_links_in_circles_end(tmp_path, target):
    root = tmp_path / "set"
    picture(root / "inner" / "a.png")
    (root / "0_link").symlink_to(target)
    (root / "inner" / "back").symlink_to("..")
    assert DatasetArchive(root).image_names() == ["inner/a.png"]


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "fifo.png")
    os.mkfifo(tmp_path / "dataset.json")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / ".#dataset.json").symlink_to("user@host.1:2")
    archive = DatasetArchive(tmp_path)
    assert archive.image_names() == ["a.png"] and not archive.exists("dataset.json")
    (note,) = archive.notes
    assert "circle.png and 3 more, no regular files" in note
    with pytest.raises(UserError, match="neither a folder nor a file"):
        DatasetArchive(tmp_path / "fifo.png")


def test_links_in_a_zip_are_no_images(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(picture(tmp_path / "a.png"), "a.png")
        archive.writestr(link, "a.png")
    assert DatasetArchive(tmp_path / "set.zip").image_names() == ["a.png"]


@pytest.mark.parametrize("packed", [False, True])
def test_files_that_are_not_read_are_counted_by_kind(tmp_path, packed):
    root = save_numbered(tmp_path / "set", 1)
    for name in ("a.txt", "b.TXT", "c.cr2", "readme", ".hidden.txt", "dataset.json"):
        (root / name).write_text("")
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in root.iterdir():
                archive.write(file, file.name)
        root = tmp_path / "set.zip"
    assert DatasetArchive(root).notes == ["not read: 1 without an extension, 1 .cr2, 2 .txt"]


def test_a_set_of_nothing_but_heic_says_what_reads_them(tmp_path, monkeypatch):
    monkeypatch.setattr("training.data.archive.extensions", lambda: frozenset({".png"}))
    for name in ("a.heic", "b.HEIC"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"no images in .*2 \.heic \(`pip install pillow-heif`"):
        DatasetArchive(tmp_path)


@pytest.mark.parametrize("log", ["log.txt", "stats.jsonl"])
@pytest.mark.parametrize("packed", [False, True])
def test_pictures_in_run_folders_are_no_photographs(tmp_path, log, packed):
    root = save_numbered(tmp_path / "set", 2)
    run = root / "runs" / "00000-toy"
    picture(run / "reals.png")
    picture(run / "deeper" / "x.png")
    for name in ("config.json", log):
        (run / name).write_text("{}")
    picture(root / "no_run" / "y.png")
    (root / "no_run" / "config.json").write_text("{}")
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in root.rglob("*"):
                archive.write(file, file.relative_to(root))
    archive = DatasetArchive(tmp_path / "set.zip" if packed else root)
    assert archive.image_names() == ["000.png", "001.png", "no_run/y.png"]
    assert archive.notes[0] == "runs/00000-toy is a run folder: nothing in it is read"


def test_a_run_folder_that_is_asked_for_is_read(tmp_path):
    picture(tmp_path / "reals.png")
    for name in ("config.json", "log.txt"):
        (tmp_path / name).write_text("{}")
    assert DatasetArchive(tmp_path).image_names() == ["reals.png"]


def test_runs_may_not_be_written_into_the_data(tmp_path):
    data = save_numbered(tmp_path / "data", 1)
    (tmp_path / "link").symlink_to(data)
    for outdir in (data, data / "runs", data / "a" / ".." / "b", tmp_path / "link" / "runs"):
        with pytest.raises(UserError, match="--outdir .* lies in the data"):
            refuse_inside(outdir, data)
    for outdir in (tmp_path, tmp_path / "data_2", data / ".."):
        refuse_inside(outdir, data)
    refuse_inside(tmp_path, tmp_path / "data.zip")


@pytest.mark.parametrize("path", ["", "absent\nabsent", "\0"])
def test_paths_that_are_none_get_one_line(path):
    with pytest.raises(UserError) as error:
        DatasetArchive(path)
    assert str(error.value).isprintable()


def test_names_that_are_no_utf8_are_read_and_escaped(tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    picture(root / os.fsdecode(b"\xe9\x1b[2J\n.png"))
    (root / os.fsdecode(b"br\xe9.png")).write_bytes(b"broken")
    archive = DatasetArchive(root)
    broken, whole = archive.image_names()
    assert archive.read_image(whole).size == (8, 8)
    with pytest.raises(UnreadableError, match=r"cannot read image br\\xe9\.png") as error:
        archive.read_image(broken)
    assert str(error.value).isprintable() and "0x" not in str(error.value)
    with pytest.raises(UserError, match=r"no images in .*caf\\xe9"):
        (root / broken).unlink()
        (root / whole).unlink()
        DatasetArchive(root)


def test_a_file_that_vanishes_is_named(tmp_path):
    archive = DatasetArchive(save_numbered(tmp_path, 2))
    (tmp_path / "001.png").unlink()
    with pytest.raises(UnreadableError, match=r"001\.png"):
        archive.read_image("001.png")


def test_encrypted_and_strangely_packed_members_are_named(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(picture(tmp_path / "a.png"), "a.png")
    data = bytearray(path.read_bytes())
    start, entry = data.index(b"PK\3\4"), data.index(b"PK\1\2")
    for offset, value in [(0, 1), (2, 97)]:  # flags, method
        broken = bytearray(data)
        broken[start + 6 + offset] = broken[entry + 8 + offset] = value
        path.write_bytes(broken)
        with pytest.raises(UnreadableError, match=r"cannot read a\.png"):
            DatasetArchive(path).read_image("a.png")
