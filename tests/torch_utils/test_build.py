"""Compiling on first use: cached, safe from killed and concurrent builds, not fatal by default."""

import logging
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dnnlib import UserError
from torch_utils.ops import build, set_mode, triplane_render
from torch_utils.ops.triplane_render import DecoderWeights

SLOW_COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo slow 1.0; exit; fi
echo $$ > {folder}/started
(sleep 2; touch {folder}/survived; sleep 60) &
wait
"""

COUNTING_COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo counting 1.0; exit; fi
echo run >> {folder}/runs
exec g++ "$@"
"""


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache, and no memory of earlier builds."""
    monkeypatch.setenv("POF3D_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_mode", None)
    build._build_once.cache_clear()
    yield
    build._build_once.cache_clear()


def _compiler(folder: Path, text: str) -> str:
    path = folder / "compiler"
    path.write_text(text.format(folder=folder))
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def _render():
    decoder = DecoderWeights(torch.ones(4, 2), torch.zeros(4), torch.ones(3, 4), torch.zeros(3))
    return triplane_render(torch.ones(1, 3, 2, 4, 4), torch.zeros(1, 5, 3), decoder, box_warp=1)


def _built(tmp_path):
    return list((tmp_path / "cache" / "ops").glob("*.so"))


def test_second_use_loads_what_the_first_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", _compiler(tmp_path, COUNTING_COMPILER))
    set_mode("native")
    first = _render()
    build._build_once.cache_clear()
    assert torch.equal(_render().sigma, first.sigma)
    assert (tmp_path / "runs").read_text().count("run") == 1


def test_changed_source_is_compiled_again(tmp_path, monkeypatch):
    command = build.cpu_command("baseline")
    first = build.build("triplane_render", "triplane_render.cpp", command)
    copy = tmp_path / "csrc"
    copy.mkdir()
    for file in build.SOURCES.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with open(copy / "simd.h", "a") as file:
        file.write("// changed\n")
    monkeypatch.setattr(build, "SOURCES", copy)
    assert build.build("triplane_render", "triplane_render.cpp", command) != first


def test_missing_compiler_costs_one_warning_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        _render()
        _render()
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "no-such-compiler" in message and "\n" not in message
    assert not _built(tmp_path)


def test_broken_compiler_is_quoted(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(
        "CXX", _compiler(tmp_path, "#!/bin/sh\necho 'x.cpp:1: error: bad'\nexit 1\n")
    )
    _render()
    assert len(caplog.records) == 1 and "x.cpp:1: error: bad" in caplog.records[0].getMessage()
    assert not list((tmp_path / "cache" / "ops").iterdir())


def test_mode_native_makes_failure_an_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    set_mode("native")
    with pytest.raises(UserError, match="no-such-compiler"):
        _render()


def test_mode_torch_compiles_nothing(tmp_path):
    set_mode("torch")
    _render()
    assert not _built(tmp_path)


def test_environment_variable_sets_the_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("POF3D_OPS", "torch")
    _render()
    assert not _built(tmp_path)


def test_unknown_mode_is_refused(monkeypatch):
    with pytest.raises(UserError, match="turbo"):
        set_mode("turbo")
    monkeypatch.setenv("POF3D_OPS", "fast")
    with pytest.raises(UserError, match="fast"):
        _render()


def test_compiler_that_hangs_is_ended_with_its_children(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CXX", _compiler(tmp_path, SLOW_COMPILER))
    monkeypatch.setattr(build, "TIME_LIMIT", 0.5)
    start = time.monotonic()
    _render()
    assert time.monotonic() - start < 10
    assert "more than 0.5 s" in caplog.records[0].getMessage()
    time.sleep(max(0, start + 3 - time.monotonic()))
    assert (tmp_path / "started").exists() and not (tmp_path / "survived").exists()


def _python(code: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


BUILD = """
from torch_utils.ops import build
print(build.build("triplane_render", "triplane_render.cpp", build.cpu_command("baseline")))
"""


def test_killed_build_leaves_nothing_in_the_way(tmp_path):
    victim = _python(BUILD, CXX=_compiler(tmp_path, SLOW_COMPILER))
    while not (tmp_path / "started").exists():
        assert victim.poll() is None, victim.stderr.read()
        time.sleep(0.05)
    victim.kill()
    victim.communicate()
    os.killpg(int((tmp_path / "started").read_text()), signal.SIGKILL)
    start = time.monotonic()
    set_mode("native")
    _render()
    assert time.monotonic() - start < 30
    assert len(_built(tmp_path)) == 1


def test_builds_at_the_same_time_do_not_disturb_each_other(tmp_path):
    processes = [_python(BUILD) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert len(_built(tmp_path)) == 1
    assert list((tmp_path / "cache" / "ops").iterdir()) == _built(tmp_path)
