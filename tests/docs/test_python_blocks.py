"""Python code in the documentation compiles, and what it imports exists."""

import ast
import importlib

import pytest

import pof3d
from tests.docs.pages import PAGES, ROOT, blocks, name_of

CODE = [
    pytest.param(code, id=f"{name_of(page)}, {number}")
    for page in PAGES
    for number, code in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("code", CODE)
def test_names_exist(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pof3d":
            assert node.attr in pof3d.__all__


def test_the_quickstart_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (code,) = blocks(ROOT / "docs/quickstart.md", "python")
    exec(code, {})
    assert "[4, 3, 3, 32, 32]" in capsys.readouterr().out
