"""Figures are what their scripts draw."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


@pytest.mark.parametrize("name", ["framework", "cameras"])
def test_drawing_is_up_to_date(name, tmp_path):
    drawn = tmp_path / "drawn.svg"
    script = ROOT / f"docs/figures/{name}.py"
    subprocess.run([sys.executable, str(script), str(drawn)], check=True, cwd=tmp_path)
    assert words(drawn) == words(ROOT / f"docs/images/{name}.svg")


def words(path: Path) -> list[tuple[str, str]]:
    """Kinds and texts of all shapes; places may differ in the last digit between machines."""
    return [(shape.tag, shape.text or "") for shape in ET.parse(path).iter()]
