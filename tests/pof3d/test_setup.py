"""setup.sh: which Python it needs, and where torch comes from."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def setup(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    for name in ("setup.sh", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, folder)
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "POF3D_TORCH_INDEX")}
    return subprocess.run(
        ["sh", str(folder / "setup.sh"), *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
    )


def test_an_old_python_is_said_and_nothing_is_made(tmp_path):
    old = program(
        tmp_path / "python3.10", 'case "$1" in --version) echo Python 3.10.12;; *) exit 1;; esac'
    )
    done = setup(tmp_path, "requirements.txt", PYTHON=str(old))
    assert done.returncode == 1 and not (tmp_path / ".venv").exists()
    (line,) = done.stderr.splitlines()
    assert "Python 3.11 or newer is needed" in line and "is Python 3.10.12" in line


@pytest.mark.parametrize(
    ("arguments", "environment", "index"),
    [
        ((), {}, None),
        (("--cpu",), {}, "https://download.pytorch.org/whl/cpu"),
        ((), {"POF3D_TORCH_INDEX": "https://mirror/cpu"}, "https://mirror/cpu"),
        (("--cpu",), {"POF3D_TORCH_INDEX": "https://mirror/cpu"}, "https://mirror/cpu"),
    ],
)
def test_torch_comes_from_the_index_that_is_asked_for(arguments, environment, index, tmp_path):
    """An environment that only writes down what it is asked to install."""
    log = tmp_path / "log"
    program(tmp_path / ".venv/bin/python", f'echo "$@" >> {log}')
    done = setup(tmp_path, *arguments, "requirements.txt", "requirements-dev.txt", **environment)
    assert done.returncode == 0, done.stderr
    pip = "-m pip install --quiet --disable-pip-version-check"
    pin = next(x for x in (ROOT / "requirements.txt").read_text().split() if x.startswith("torch="))
    first = [f"{pip} --index-url {index} {pin}"] if index else []
    files = [f"{pip} -r requirements.txt", f"{pip} -r requirements-dev.txt"]
    assert log.read_text().splitlines() == first + files
