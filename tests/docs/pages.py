"""The pages of the documentation, and what is in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if not path.is_symlink()),
]
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.M | re.S)
CODE_SPAN = re.compile(r"`[^`\n]+`")


def name_of(page: Path) -> str:
    """For the ids of tests."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[str]:
    """The fenced code of a language, without its indentation."""
    for indentation, found, code in FENCE.findall(page.read_text()):
        if found == language:
            yield re.sub(f"^{indentation}", "", code, flags=re.M)


def prose(page: Path) -> str:
    """A page without fenced code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What #fragments may name: the headings, as GitHub and mkdocs spell them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }
