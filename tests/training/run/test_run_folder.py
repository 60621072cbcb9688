"""Names of run folders, and how a run is found again."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dnnlib import UserError
from training.run.run_folder import (
    checkpoints,
    images_in,
    kimg_tag,
    latest_run_folder,
    new_run_folder,
    rename_unused,
    surplus_networks,
)


def run_with_checkpoint(outdir: Path, name: str) -> Path:
    (outdir / name).mkdir(parents=True)
    (outdir / name / "checkpoint-000001.00.pt").write_text("")
    return outdir / name


def test_folders_are_numbered(tmp_path):
    outdir = tmp_path / "made" / "when missing"
    assert new_run_folder(outdir, "toy").name == "00000-toy"
    assert new_run_folder(outdir, "cats").name == "00001-cats"
    (outdir / "00041-toy").mkdir()
    (outdir / "00099-toy").write_text("a file, not a run")
    (outdir / "notes").mkdir()
    assert new_run_folder(outdir, "toy").name == "00042-toy"


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run_folder(tmp_path, "toy"), range(40)))
    assert len(set(folders)) == 40


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --outdir .*choose another folder"):
        new_run_folder(tmp_path / "file", "toy")


def test_the_latest_run_of_that_description_with_a_checkpoint(tmp_path):
    run_with_checkpoint(tmp_path, "00002-toy")
    wanted = run_with_checkpoint(tmp_path, "00010-toy")
    run_with_checkpoint(tmp_path, "00011-toy-longer")
    run_with_checkpoint(tmp_path, "00012-cats")
    (tmp_path / "00013-toy").mkdir()
    assert latest_run_folder(tmp_path, "toy") == wanted
    with pytest.raises(UserError, match="no run 'ffhq' with a checkpoint.*leave out --resume"):
        latest_run_folder(tmp_path, "ffhq")
    with pytest.raises(UserError, match="no run 'toy' with a checkpoint"):
        latest_run_folder(tmp_path / "missing", "toy")


def test_checkpoints_are_listed_newest_first(tmp_path):
    tags = [kimg_tag(kimg) for kimg in (9.6, 0, 100, 25000, 12.8, 0.04)]
    for tag in tags:
        (tmp_path / f"checkpoint-{tag}.pt").write_text("")
        (tmp_path / f".checkpoint-{tag}.pt.x.tmp").write_text("")
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == [
        "checkpoint-025000.00.pt",
        "checkpoint-000100.00.pt",
        "checkpoint-000012.80.pt",
        "checkpoint-000009.60.pt",
        "checkpoint-000000.04.pt",
        "checkpoint-000000.00.pt",
    ]


def test_set_aside_keeps_the_file_and_hides_it(tmp_path):
    path = tmp_path / "checkpoint-000001.00.pt"
    path.write_text("state")
    assert rename_unused(path).read_text() == "state"
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    ("newest", "every_kimg", "deleted"),
    [
        (2, 0, [200, 400, 600, 800]),
        (2, 600, [200, 400, 800]),
        (1, 400, [200, 600, 1000]),
        (9, 0, []),
    ],
)
def test_the_newest_networks_and_some_older_ones_are_kept(tmp_path, newest, every_kimg, deleted):
    for kimg in range(200, 1201, 200):
        (tmp_path / f"network-{kimg_tag(kimg)}.safetensors").touch()
    surplus = surplus_networks(tmp_path, newest, every_kimg)
    assert sorted(path.name for path in surplus) == [
        f"network-{kimg_tag(kimg)}.safetensors" for kimg in deleted
    ]


def test_a_run_is_found_whatever_its_number_of_processes(tmp_path):
    folder = run_with_checkpoint(tmp_path, "00003-toy-heads-gpus8-batch32-gamma1")
    assert latest_run_folder(tmp_path, "toy-heads-gpus2-batch32-gamma1") == folder
    with pytest.raises(UserError, match="--resume auto"):
        latest_run_folder(tmp_path, "toy-heads-gpus8-batch16-gamma1")


def test_sums_of_kimg_are_whole_images():
    """0.004 * 9 is 0.036000000000000004; the run would train for one step more."""
    assert all(images_in(0.004 * steps) == 4 * steps for steps in range(1000))
    assert images_in(0.0005) == 1 and images_in(25000) == 25_000_000
