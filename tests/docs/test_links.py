"""Links of the documentation lead somewhere."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.docs.pages import CODE_SPAN, PAGES, ROOT, anchors, name_of, prose

LINK = re.compile(r"""\]\(([^)\s]+)\)|\bsrc="([^"]+)\"""")
# Files of the code that prose names: `training/losses.py`.
NAMED_FILE = re.compile(r"`((?:\w+/)+\w+\.(?:py|md|npz|zip|safetensors))`")


def links(page: Path) -> list[str]:
    return [link or source for link, source in LINK.findall(CODE_SPAN.sub("", prose(page)))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    broken = []
    for link in links(page):
        path, _, fragment = link.partition("#")
        if path.startswith(("https://", "mailto:")):
            continue
        target = page if not path else page.parent / path
        if not target.exists():
            broken.append(link)
        elif fragment and fragment not in anchors(target.resolve()):
            broken.append(link)
    assert not broken


def test_every_page_is_reached_from_the_site_and_from_the_readme():
    nav = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages == nav
    linked = {link.partition("#")[0] for link in links(ROOT / "README.md")}
    missing = {f"docs/{page}" for page in pages - {"index.md", "contributing.md", "changelog.md"}}
    assert not missing - linked


def test_files_that_are_named_exist():
    made_by_users = {"rgb/000000.png"}
    missing = {
        (name_of(page), name)
        for page in PAGES
        for name in NAMED_FILE.findall(prose(page))
        if not (ROOT / name).exists() and name not in made_by_users
        and page.name not in ("CHANGELOG.md",)
    }  # fmt: skip
    packages = ("training/", "pof3d/", "metrics/", "torch_utils/", "tests/", "docs/", "recipes/")
    assert not {(page, name) for page, name in missing if name.startswith(packages)}


def test_figures_are_used():
    shown = {Path(link).name for page in PAGES for link in links(page)}
    assert {path.name for path in (ROOT / "docs/images").iterdir()} <= shown


@pytest.mark.parametrize(
    "target",
    [
        "data.md#ffhq",
        "training.md#time-and-memory",
        "method.md#where-the-pose-pseudo-label-is-computed",
        "resume.md#resume-on-another-machine",
        "meshes_and_videos.md#open-a-mesh-in-blender",
        "logs.md#scalars",
        "contributing.md#add-a-loss",
        "troubleshooting.md#poses-collapse",
    ],
)
def test_readme_leads_to_what_readers_look_for(target):
    assert f"docs/{target}" in links(ROOT / "README.md")


def test_every_figure_says_what_makes_it():
    table = (ROOT / "docs/contributing.md").read_text()
    patterns = re.findall(r"`([\w*-]+\.(?:png|gif|svg))`", table)
    figures = [path.name for path in (ROOT / "docs/images").iterdir()]
    assert not [name for name in figures if not any(fnmatch(name, p) for p in patterns)]
