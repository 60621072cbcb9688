"""Mistakes of users, and what the system refuses, are one line."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dnnlib import Command, SeedList, UserError
from tests.helpers import PATIENCE

ROOT = Path(__file__).parents[2]


def raised_from_closed_pipe():
    try:
        raise BrokenPipeError(32, "Broken pipe")
    except OSError as error:
        raise UserError("choose another --outdir") from error


MISTAKES = {
    "badly": lambda: (_ for _ in ()).throw(UserError("this cannot be: do it well")),
    "wrongly": lambda: (_ for _ in ()).throw(ValueError("a fault of the program")),
    "numpy": lambda: np.empty((1 << 50,), np.uint8),
    "torch": lambda: torch.empty(1 << 48, dtype=torch.uint8),
    "cuda": lambda: (_ for _ in ()).throw(
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total")
    ),
    "python": lambda: (_ for _ in ()).throw(MemoryError()),
    "unwritable": lambda: open("/nowhere/file", "w"),
    "pipe": raised_from_closed_pipe,
    "ctrl-c": lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    "program": lambda: (_ for _ in ()).throw(RuntimeError("shapes differ")),
}


@click.command(cls=Command, memory_hint="a smaller --batch")
@click.option("--how", required=True)
def command(how: str) -> None:
    MISTAKES.get(how, lambda: None)()
    click.echo("done")


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("badly", 1, "this cannot be: do it well"),
        (
            "numpy",
            1,
            r"out of memory \(1.00 PiB more were asked for\); a smaller --batch needs less",
        ),
        (
            "torch",
            1,
            r"out of memory \(256 TiB more were asked for\); a smaller --batch needs less",
        ),
        ("cuda", 1, r"out of CUDA memory \(20.00 GiB more were asked for\); a smaller .*"),
        ("python", 1, "out of memory; a smaller --batch needs less"),
        (
            "unwritable",
            1,
            "No such file or directory: /nowhere/file",
        ),
        ("ctrl-c", 130, "interrupted"),
    ],
)
def test_errors_of_users_and_systems_are_one_line(how, status, line):
    result = CliRunner().invoke(command, ["--how", how])
    assert result.exit_code == status
    assert re.fullmatch(f"Error: {line}\n", result.output)


def test_a_closed_pipe_gets_no_hint():
    result = CliRunner().invoke(command, ["--how", "pipe"])
    assert (result.exit_code, result.output) == (141, "")


@pytest.mark.parametrize("how", ["wrongly", "program"])
def test_faults_of_the_program_are_not_hidden(how):
    result = CliRunner().invoke(command, ["--how", how])
    assert isinstance(result.exception, ValueError | RuntimeError)


def test_success():
    result = CliRunner().invoke(command, ["--how", "well"])
    assert (result.exit_code, result.output) == (0, "done\n")


SCRIPT = """
import sys, time, click
from pathlib import Path
from dnnlib import Command, atomic_write
@click.command(cls=Command)
@click.argument("what")
def main(what):
    if what == "sleep":
        with atomic_write("wanted") as temporary:
            temporary.write_text("half")
            print("ready", flush=True)
            time.sleep(600)
    if what == "print":
        for _ in range(100000): print("a line without flushing")
    print(what)
main()
"""


def start(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.Popen(command, env=environment, **options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_ended_leaves_no_temporary_file(tmp_path, number):
    process = start("sleep", stdout=subprocess.PIPE, cwd=tmp_path, text=True)
    assert process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE) == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_text_that_the_terminal_cannot_encode_is_escaped():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start("±", **pipes, env={"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "1"})
    out, error = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, error) == (0, b"\\xb1\n", b"")
    strict = {"PYTHONIOENCODING": "utf-8:strict", "PYTHONUTF8": "1"}
    out, error = start(b"caf\xe9", **pipes, env=strict).communicate(timeout=PATIENCE)
    assert (out, error) == (b"caf\\udce9\n", b"")


def test_a_reader_that_leaves_ends_the_command_quietly():
    process = start("print", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=PATIENCE) == 141


def test_a_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        process = start("hello", stdout=full, stderr=subprocess.PIPE)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert error == b"Error: No space left on device; make room there\n"


def seeds(text):
    return SeedList().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-3,7", [0, 1, 2, 3, 7]),
        ("5", [5]),
        ("7,0-3, 2-5 ,7", [7, 0, 1, 2, 3, 4, 5]),
        ("3-4,0-9,1", [3, 4, 0, 1, 2, 5, 6, 7, 8, 9]),
        ("2,4,6,0-7", [2, 4, 6, 0, 1, 3, 5, 7]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_seeds_are_numbers_in_order_each_once(text, expected):
    found = seeds(text)
    assert list(found) == expected and found == expected and len(found) == len(expected)
    assert [found[i] for i in range(len(found))] == expected
    assert [found[i] for i in range(-len(found), 0)] == expected
    for part in (slice(1, 3), slice(-2, None), slice(0), slice(None, None, -2)):
        assert list(found[part]) == expected[part]
    assert all(x in found for x in expected) and 11 not in found
    assert seeds(repr(found)) == found
    with pytest.raises(IndexError):
        found[len(expected)]


def test_all_seeds_there_are_take_no_time_and_no_memory():
    started = time.process_time()
    found = seeds("5,0-4294967295,0-4294967295")
    assert len(found) == 2**32
    assert (found[0], found[1], found[-1]) == (5, 0, 2**32 - 1)
    assert list(found[4:9]) == [3, 4, 6, 7, 8]
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a seed nor a range"),
        ("-1", "neither"),
        ("1-", "neither"),
        ("a", "neither"),
        ("1" * 5000, "neither"),
        ("4294967296", "up to 4294967295"),
        ("0-99999999999", "neither"),
        ("3-1", "write 1-3"),
    ],
)
def test_what_is_no_seed_is_refused(text, message):
    with pytest.raises(click.BadParameter, match=message):
        seeds(text)
