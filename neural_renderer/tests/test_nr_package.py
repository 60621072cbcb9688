"""What is installed."""

import subprocess
import sys
from importlib import metadata, resources

import pytest

import neural_renderer as nr


def test_the_sources_of_the_op_are_installed():
    folder = resources.files(nr) / "ops" / "csrc"
    names = {entry.name for entry in folder.iterdir()}
    assert {"geometry.h", "interface.h", "rasterize.cpp", "rasterize.cu"} <= names


def test_the_version_is_that_of_the_distribution():
    try:
        installed = metadata.version("neural_renderer")
    except metadata.PackageNotFoundError:
        pytest.skip("not installed")
    assert nr.__version__ == installed


def test_only_torch_numpy_and_pillow_are_imported():
    """Nothing else outside the standard library that torch, numpy and pillow do not bring."""
    code = """
import sys, numpy, torch, PIL.Image
before = set(sys.modules)
import neural_renderer
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"torch", "numpy", "PIL"}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "['neural_renderer']", result.stderr


def test_everything_public_is_documented():
    for name in nr.__all__:
        assert getattr(nr, name).__doc__, name
