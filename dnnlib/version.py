"""Which version of the code is running."""

import contextlib
import functools
import importlib.metadata
import subprocess
from pathlib import Path


@functools.cache
def code_version() -> str:
    """The git revision of this code, '-dirty' where files differ from it; else the package's."""
    root = Path(__file__).parents[1]
    if (root / ".git").exists():
        describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.check_output(
                [*describe, "--exclude=*"], stderr=subprocess.DEVNULL, text=True
            ).strip()
    try:
        return importlib.metadata.version("pof3d")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
