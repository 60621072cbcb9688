"""Compiling on first use: cached, safe from killed and concurrent builds, never the run's end."""

import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neural_renderer.ops import build

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")

COMPILER = """#!/bin/sh
case "$*" in *--version*) echo counting 1.0; exit;; esac
echo "$(basename "$0")" >> {folder}/runs
shift $(($# - 3))
exec g++ -x c++ -shared -fPIC "$@"
"""

SLOW_COMPILER = """#!/bin/sh
case "$*" in *--version*) echo slow 1.0; exit;; esac
echo $$ > {folder}/started
(for _ in $(seq 6000); do sleep 0.1; echo >> {folder}/alive; done) &
wait
"""

BROKEN_COMPILER = """#!/bin/sh
case "$*" in *--version*) echo broken 1.0; exit;; esac
echo "In file included from x:"
echo "x.cpp:1: error: bad"
echo "x.cpp:1: note: here"
exit 1
"""


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """Sources of one function, an empty cache, and no word about compilers."""
    (tmp_path / "csrc").mkdir()
    for name in ("answer.cpp", "answer.cu"):
        (tmp_path / "csrc" / name).write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setenv("DEMO_CACHE", str(tmp_path / "cache"))
    for name in ("CXX", "NVCC", "CUDA_HOME", "CUDA_PATH", "DEMO_OPS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start(tmp_path):
    """A function that gives the kernels as a new process would find them."""
    return lambda: build.Kernels(
        "demo",
        tmp_path / "csrc",
        cache_variable="DEMO_CACHE",
        mode_variable="DEMO_OPS",
        logger=logging.getLogger("demo"),
    )


@pytest.fixture
def script(tmp_path):
    """A function that writes a program, by default one that compiles and counts."""

    def write(name="compiler", text=COMPILER):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(folder=tmp_path))
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        return str(path)

    return write


def answer(kernels, source="answer.cpp"):
    library = kernels.load(source, (), "native")
    return library.answer()


def built(tmp_path):
    return list((tmp_path / "cache" / "ops").glob("*.so"))


def test_second_process_loads_what_the_first_compiled(tmp_path, start, script, monkeypatch):
    monkeypatch.setenv("CXX", script())
    assert [answer(start()) for _ in range(2)] == [42, 42]
    assert (tmp_path / "runs").read_text() == "compiler\n"


def test_changed_source_is_compiled_again(tmp_path, start):
    assert answer(start()) == 42
    (tmp_path / "csrc" / "answer.cpp").write_text('extern "C" int answer() { return 43; }\n')
    assert answer(start()) == 43


@pytest.mark.parametrize("form", ["{} g++", "  {}  ", "'{}' g++ -DX='a b'"])
def test_cxx_may_hold_arguments(tmp_path, start, script, monkeypatch, form):
    monkeypatch.setenv("CXX", form.format(script()))
    assert answer(start()) == 42 and (tmp_path / "runs").exists()


def test_cxx_may_be_a_path_with_spaces(tmp_path, start, script, monkeypatch):
    monkeypatch.setenv("CXX", script("my tools/compiler"))
    assert answer(start()) == 42 and (tmp_path / "runs").exists()


def test_empty_cxx_is_none(start, monkeypatch):
    monkeypatch.setenv("CXX", " ")
    assert answer(start()) == 42


def test_nvcc_is_found_by_its_variables(tmp_path, start, script, monkeypatch):
    script("toolkit/bin/nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert answer(start(), "answer.cu") == 42
    monkeypatch.setenv("NVCC", script("other") + " -DX")
    assert answer(start(), "answer.cu") == 42
    assert (tmp_path / "runs").read_text() == "nvcc\nother\n"


@pytest.mark.parametrize(
    "variables, reason",
    [
        ({"CXX": "no-such-compiler"}, "no compiler 'no-such-compiler' found"),
        ({"CXX": "no-such-cache g++"}, "no compiler 'no-such-cache' found"),
        ({"CXX": "g++ 'x"}, "No closing quotation"),
        ({"CXX": "false"}, "false failed: "),
        ({"PATH": ""}, "no C[+][+] compiler found"),
        ({"DEMO_CACHE": "/dev/null/cache"}, "/dev/null/cache"),
        ({"DEMO_CACHE": "~nobody-of-this-name/cache"}, "set DEMO_CACHE"),
    ],
)
def test_what_stands_in_the_way_costs_one_warning_line(
    start, monkeypatch, caplog, variables, reason
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    kernels = start()
    assert [kernels.load(name, (), "auto") for name in ("answer.cpp",) * 2] == [None, None]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "\n" not in record.getMessage()
    with pytest.raises(build.BuildError, match=reason):
        kernels.load("answer.cpp", (), "native")


@pytest.mark.parametrize("cache", ["~", None])
def test_a_user_without_a_home_gets_a_warning(start, monkeypatch, caplog, cache):
    def no_entry(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for name in ("HOME", "XDG_CACHE_HOME", "DEMO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if cache:
        monkeypatch.setenv("DEMO_CACHE", cache)
    assert start().load("answer.cpp", (), "auto") is None
    assert "no home folder" in caplog.text and "DEMO_CACHE" in caplog.text


def test_a_broken_compiler_is_quoted_and_leaves_nothing(tmp_path, start, script, monkeypatch):
    monkeypatch.setenv("CXX", script(text=BROKEN_COMPILER))
    with pytest.raises(build.BuildError, match="x.cpp:1: error: bad"):
        answer(start())
    assert not list((tmp_path / "cache" / "ops").iterdir())


def test_a_library_that_cannot_be_loaded_is_a_problem(tmp_path, start, caplog):
    start().build("answer.cpp", ()).write_text("no library")
    assert start().load("answer.cpp", (), "auto") is None
    assert len(caplog.records) == 1


def test_the_environment_sets_the_mode(start, monkeypatch):
    assert start().mode() == "auto"
    monkeypatch.setenv("DEMO_OPS", "torch")
    assert start().mode() == "torch"
    monkeypatch.setenv("DEMO_OPS", "turbo")
    with pytest.raises(ValueError, match="turbo"):
        start().mode()


def test_mode_torch_compiles_nothing(tmp_path, start):
    assert start().load("answer.cpp", (), "torch") is None
    assert not built(tmp_path)


def test_compiler_that_hangs_is_ended_with_its_children(tmp_path, start, script, monkeypatch):
    monkeypatch.setenv("CXX", script(text=SLOW_COMPILER))
    monkeypatch.setattr(build, "TIME_LIMIT", 1)
    with pytest.raises(build.BuildError, match="more than 1 s"):
        answer(start())
    sizes = []
    for _ in range(2):
        sizes += [path.stat().st_size for path in tmp_path.glob("alive")]
        time.sleep(1)
    assert len(set(sizes)) <= 1, "a child goes on"


BUILD = """
import logging, pathlib, sys
from neural_renderer.ops.build import Kernels
kernels = Kernels(
    "demo", pathlib.Path(sys.argv[1]), cache_variable="DEMO_CACHE", mode_variable="DEMO_OPS",
    logger=logging.getLogger(),
)
assert kernels.load("answer.cpp", (), "native").answer() == 42
"""


def in_another_process(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", BUILD, str(folder / "csrc")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_killed_build_leaves_nothing_in_the_way(tmp_path, start, script, monkeypatch):
    monkeypatch.setenv("CXX", script(text=SLOW_COMPILER))
    victim = in_another_process(tmp_path)
    while not ((tmp_path / "started").exists() and (tmp_path / "started").read_text()):
        assert victim.poll() is None, victim.stderr.read()
        time.sleep(0.05)
    victim.kill()
    victim.communicate()
    os.killpg(int((tmp_path / "started").read_text()), signal.SIGKILL)
    monkeypatch.delenv("CXX")
    assert answer(start()) == 42
    assert len(built(tmp_path)) == 1


def test_builds_at_the_same_time_do_not_disturb_each_other(tmp_path):
    processes = [in_another_process(tmp_path) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert list((tmp_path / "cache" / "ops").iterdir()) == built(tmp_path)
    assert len(built(tmp_path)) == 1
