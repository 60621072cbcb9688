"""The acceptance run for GPUs, rehearsed on a CPU."""

import pytest
from click.testing import CliRunner

from benchmarks import gpu
from benchmarks.gpu import QUICK_STAGES, STAGES, main, run_stage


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_all_stages_run_in_miniature(tmp_path):
    dest = tmp_path / "report.md"
    result = run("--device", "cpu", "--quick", "--dest", dest)
    report = dest.read_text()
    assert result.exit_code == 0, report
    for name in QUICK_STAGES:
        assert f"`{name}`: passed" in report
    for preset in ("ffhq", "cats", "shapenet_cars"):
        assert f"| {preset} | fp16 | 2 | 0 |" in report  # steps that were trained and skipped


def test_the_whole_takes_25_minutes_at_most():
    assert sum(stage.limit for stage in STAGES.values()) <= 25 * 60


def test_a_stage_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    """In processes of their own, where a stage cannot be told to fail: by an impossible device."""
    outcomes = {"ops": (False, ["## A", "", "`ops`: **FAILED** (exit status 1), 1 s", "", "why"])}
    passed = (True, ["## B", "", "`x`: passed, 1 s", "", "| 1 |"])
    monkeypatch.setattr(gpu, "run_stage", lambda name, *_: outcomes.get(name, passed))
    dest = tmp_path / "report.md"
    result = run("--device", "cpu", "--dest", dest, "--stage", "ops", "--stage", "samples")
    assert result.exit_code == 1
    assert "1 stage(s) failed: ops" in result.output
    assert "why" in dest.read_text() and "| 1 |" in dest.read_text()


def test_a_stage_that_takes_too_long_is_ended():
    passed, lines = run_stage("ops", ["--device", "cpu"], limit=0)
    assert not passed and "more than 0 s" in lines[2]


def test_figures_of_no_gpu_do_not_get_into_the_documentation():
    result = run("--device", "cpu", "--quick")
    assert result.exit_code == 1 and "--dest" in result.output
