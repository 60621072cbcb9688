"""What a run tells its user."""

import io
import json
import math
import platform
import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from dnnlib import UserError
from torch_utils.training_stats import Stat
from training.run import reporting
from training.run.reporting import Reporter

STATS = {
    "G/loss_own_view": Stat(8, 0.7, 0.1),
    "G/depth_spread": Stat(8, 0.05, 0.01),
    "D/loss_real": Stat(8, 0.6, 0.1),
    "D/loss_own_view": Stat(8, 0.5, 0.1),
    "pose/generated_h": Stat(8, math.pi / 2, math.radians(20)),
    "pose/generated_v": Stat(8, math.pi / 2, math.radians(10)),
    "pose/estimated_h": Stat(8, math.radians(80), math.radians(5)),
    "pose/estimated_v": Stat(8, math.radians(95), math.radians(6)),
    "pose/flip_correlation": Stat(32, 0.9, 0),
    "augment/p": Stat(2, 0.125, 0),
}


@pytest.fixture
def reporter(tmp_path):
    reporter = Reporter(tmp_path, total_kimg=10)
    yield reporter
    reporter.close()


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]


def said_in(folder: Path) -> list[str]:
    """Lines of log.txt without the time that each begins with."""
    lines = (folder / "log.txt").read_text().splitlines()
    found = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.*)", line) for line in lines]
    return [match[1] for match in found]


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    # Sorted: files of one second are read in the order of their names, where 10 precedes 9.
    events = EventAccumulator(str(folder)).Reload().Scalars(name)
    return sorted((event.step, event.value) for event in events)


def test_lines_go_to_the_terminal_and_the_log(reporter, tmp_path, capsys):
    reporter.say("first")
    reporter.say("±")
    assert capsys.readouterr().out == "first\n±\n"
    assert said_in(tmp_path) == ["first", "±"]


def test_the_log_goes_on_in_a_resumed_run(tmp_path):
    for line in ("before", "after"):
        reporter = Reporter(tmp_path, 10)
        reporter.say(line)
        reporter.close()
    assert said_in(tmp_path) == ["before", "after"]


def test_without_a_folder_all_is_silent(capsys):
    reporter = Reporter(None, 10)
    reporter.say("line")
    reporter.progress(1)
    reporter.tick(1, 1, 60, STATS)
    reporter.watch_for_collapse({}, 1)
    reporter.close()
    assert capsys.readouterr() == ("", "")


def test_a_tick_in_three_places(reporter, tmp_path, capsys):
    reporter.tick(1, 4.0, 600, STATS, {"data_wait": 0.034})
    line = capsys.readouterr().out.strip()
    assert "GB | data wait 3% | G 0.700" in line
    assert line.startswith("tick 1 | kimg 4.00/10 | 600.00 s/kimg | ETA 1h 00m | ")
    assert "G 0.700 | D real 0.600 fake 0.500 | pose h 90±20 v 90±10 deg" in line
    assert line.endswith(
        "estimated h 80±5 v 95±6 | flip +0.90 | depth spread 0.0500 | augment 0.125"
    )
    (record,) = records(tmp_path)
    assert (record["tick"], record["kimg"], record["sec_per_kimg"]) == (1, 4.0, 600)
    assert record["data_wait"] == 0.034
    assert record["memory_gb"] > 0 and record["time"] > 0
    for name, stat in STATS.items():
        assert (record[name], record[f"{name}_std"]) == (stat.mean, stat.std)
    assert scalars(tmp_path, "D/loss_real") == [(4000, pytest.approx(0.6))]


def test_a_gpu_s_use_is_told_where_it_can_be_asked(reporter, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 30)
    for answer in ({"return_value": 87}, {"side_effect": ModuleNotFoundError}):
        with mock.patch.object(torch.cuda, "utilization", **answer):
            reporter.tick(1, 4.0, 600, STATS)
    known, unknown = capsys.readouterr().out.splitlines()
    assert "| 3.00 GB | GPU 87% | G " in known and "| 3.00 GB | G " in unknown
    assert [record.get("gpu_use") for record in records(tmp_path)] == [0.87, None]


def test_long_times_are_in_days(reporter, capsys):
    reporter.tick(1, 1, 36 * 3600 / 9, STATS)
    assert "ETA 1d 12h 00m" in capsys.readouterr().out


def test_a_tick_whose_steps_were_all_skipped(reporter, tmp_path, capsys):
    only = {"steps_skipped": Stat(5, 1, 0), "augment/p": Stat(5, 0, 0)}
    reporter.tick(1, 1, 60, only)
    reporter.watch_for_collapse(only, 1)
    said = capsys.readouterr().out
    assert "G nan" in said and "WARNING" not in said
    assert records(tmp_path)[0]["steps_skipped"] == 1


@pytest.mark.parametrize(
    "change, words",
    [
        ({"G/depth_spread": Stat(8, 0.019, 0)}, "the geometry is going flat"),
        (
            {"pose/generated_h": Stat(8, 1.5, 0.04), "pose/generated_v": Stat(8, 1.5, 0.05)},
            "the poses have collapsed",
        ),
    ],
)
def test_collapse_is_reported_once_until_it_recovers(reporter, capsys, change, words):
    box_warp = 2  # to which the spread of depth is compared
    for stats in (STATS, STATS | change, STATS | change):
        reporter.watch_for_collapse(stats, box_warp)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"WARNING: {words}") and "may help" in line
    for stats in (STATS, STATS | change):
        reporter.watch_for_collapse(stats, box_warp)
    assert capsys.readouterr().out.count(words) == 1


@pytest.mark.parametrize(
    "change, words",
    [
        ({"pose/flip_correlation": Stat(8, 0.1, 0)}, "poses are not being found"),
        (
            {"pose/estimated_h": Stat(8, 1.5, 0.1), "pose/estimated_v": Stat(8, 1.5, 0.05)},
            "D's poses of photographs spread by 6 degrees and G's by 20",
        ),
    ],
)
def test_poses_that_are_not_found_are_reported_once_they_are_due(reporter, capsys, change, words):
    found = STATS | {"pose/estimated_h": Stat(8, 1.5, 0.3)}
    reporter.watch_poses(found | change, 9)
    assert capsys.readouterr().out == ""
    for stats in (found, found | change, found | change):
        reporter.watch_poses(stats, 10)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"WARNING: {words}") and "docs/troubleshooting.md" in line


def test_flipped_photographs_may_be_unlike_any(reporter, capsys):
    """Where all show one side of the objects, D tells yaw by outline, which a flip keeps."""
    found = STATS | {"pose/estimated_h": Stat(8, 1.5, 0.3)}
    reporter.watch_poses(found | {"pose/flip_correlation": Stat(8, -0.8, 0)}, 10)
    assert capsys.readouterr().out == ""


def test_one_spread_angle_is_no_collapse(reporter, capsys):
    reporter.watch_for_collapse(STATS | {"pose/generated_v": Stat(8, 1.5, 0.01)}, 1)
    assert capsys.readouterr().out == ""


def test_a_resumed_run_forgets_what_it_will_repeat(tmp_path):
    first = Reporter(tmp_path, 10)
    for tick in (1, 2, 3):
        first.tick(tick, 2.0 * tick, 60, STATS)
    first.close()
    with open(tmp_path / "stats.jsonl", "a") as file:
        file.write('[1]\n{"tick": 4, "kimg": 8')
    second = Reporter(tmp_path, 10, kimg=4.0)
    assert [record["kimg"] for record in records(tmp_path)] == [2, 4]
    second.tick(3, 6.0, 60, STATS)
    second.close()
    assert [record["tick"] for record in records(tmp_path)] == [1, 2, 3]
    assert [step for step, _ in scalars(tmp_path, "tick")] == [2000, 4000, 6000]


def test_what_cannot_be_written_is_reported_or_stops_the_run(tmp_path, capsys):
    def full():
        raise OSError(28, "No space left on device")

    Reporter(tmp_path, 10).guard(full)
    assert "WARNING: could not write to" in (said := capsys.readouterr().out)
    assert "(No space left on device); going on, older files are kept" in said
    with pytest.raises(UserError, match="No space left on device.: make room, then use --resume"):
        Reporter(tmp_path, 10, stop_when_full=True).guard(full)


def test_logs_survive_a_full_disk(tmp_path, capsys):
    """Nothing of them is lost but what was reported while there was no room."""
    reporter = Reporter(tmp_path, 10)
    reporter.tick(1, 1.0, 60, STATS)
    full = OSError(28, "No space left on device")
    with (
        mock.patch.object(reporting, "append_line", side_effect=full),
        mock.patch.object(SummaryWriter, "add_scalar", side_effect=full),
    ):
        reporter.tick(2, 2.0, 60, STATS)
        reporter.say("still here")
    reporter.tick(3, 3.0, 60, STATS)
    reporter.close()
    assert "still here" in (said := capsys.readouterr().out)
    assert said.count("WARNING") == 2
    assert [record["tick"] for record in records(tmp_path)] == [1, 3]
    assert [step for step, _ in scalars(tmp_path, "tick")] == [1000, 3000]


def test_a_closed_terminal_does_not_matter(reporter, tmp_path):
    with mock.patch.object(reporting.tqdm, "write", side_effect=BrokenPipeError):
        reporter.say("nobody reads this")
    assert said_in(tmp_path) == ["nobody reads this"]


def test_pictures_are_in_tensorboard(reporter, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    reporter.pictures({"fakes": picture}, 2.0)
    (event,) = EventAccumulator(str(tmp_path)).Reload().Images("fakes")
    assert event.step == 2000
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), picture)


def test_the_log_tells_how_to_repeat_the_run(reporter, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--data", "my photos"])
    reporter.say_environment()
    command, host = said_in(tmp_path)
    assert command == "command line: train.py --data 'my photos'"
    assert platform.node() in host and torch.__version__ in host


def test_the_first_estimate(reporter, tmp_path):
    reporter.estimate(0.5, 7200)
    (line,) = said_in(tmp_path)
    assert line.startswith("0.5 s per step: about 1h 00m to 10 kimg; ")
