"""The package as `pip install .` makes it: what is in it, and that it works from elsewhere."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUTSIDE = ("tests", "runs", "models", "docs", ".*", "*.egg-info", "build", "__pycache__")

CODE = """
import sys
import pof3d, neural_renderer
assert pof3d.__file__.startswith(sys.argv[1]) and neural_renderer.__file__.startswith(sys.argv[1])
network = pof3d.load_network(sys.argv[2])
print(list(pof3d.Objects.from_seeds(network.generator, [0]).own_view().image.shape))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*OUTSIDE))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*pip, str(folder), str(folder / "source")], check=True)
    (path,) = folder.glob("pof3d-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    packages = {"pof3d", "training", "torch_utils", "metrics", "dnnlib", "neural_renderer"}
    assert roots == packages
    for library in ("torch_utils", "neural_renderer"):
        sources = {path.name for path in (ROOT / library / "ops/csrc").iterdir()}
        packed = {Path(name).name for name in names if name.startswith(f"{library}/ops/csrc/")}
        assert sources == packed and sources
    modules = {
        str(path.relative_to(ROOT)) for root in packages for path in (ROOT / root).rglob("*.py")
    }
    left_out = {name for name in modules - set(names) if "/tests/" not in name}
    assert all(name.startswith("neural_renderer/examples/") for name in left_out), left_out


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    network = ROOT / "models/toy.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(site), str(network)],
        cwd=tmp_path, env={"PYTHONPATH": str(site), "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[1, 3, 32, 32]", done.stderr
