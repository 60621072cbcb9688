"""Which version of the code a file says it comes from."""

import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest

from dnnlib import code_version, version


@pytest.fixture
def version_in(tmp_path, monkeypatch):
    """The version that code in a folder would find."""
    (tmp_path / "dnnlib").mkdir()
    monkeypatch.setattr(version, "__file__", str(tmp_path / "dnnlib" / "version.py"))
    return code_version.__wrapped__


def commit_all(folder: Path) -> None:
    git = ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x@x"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)


def test_in_a_checkout_it_is_the_revision(tmp_path, version_in):
    (tmp_path / "file").write_text("x")
    commit_all(tmp_path)
    assert re.fullmatch("[0-9a-f]{12}", version_in())
    (tmp_path / "file").write_text("y")
    assert version_in().endswith("-dirty")


def test_elsewhere_it_is_the_package(tmp_path, version_in, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"pof3d": "3.2.1"}[name])
    assert version_in() == "3.2.1"
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert version_in() == "3.2.1", "a repository without a commit"
    monkeypatch.setenv("PATH", "")
    assert version_in() == "3.2.1", "no git"
