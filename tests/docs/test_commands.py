"""Command lines in the documentation name commands, options, settings and metrics that exist."""

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from metrics.registry import parse_names
from pof3d.__main__ import COMMANDS
from tests.docs.pages import CODE_SPAN, PAGES, ROOT, blocks, name_of, prose
from training.config import describe_settings
from training.presets import PRESET_ALIASES, PRESETS

MODULES = [module for module, _ in COMMANDS.values()]
SETTINGS = {name for name, _, _ in describe_settings()} | {"section.field"}
PRESET_SCRIPTS = {"./ffhq.sh", "./cats.sh", "./shapenet_cars.sh"}
INDENTED = re.compile(r"^ {4,}((?:python|pof3d|torchrun|OMP\S+) (?:.*\\\n)*.*)", re.M)
IN_A_SENTENCE = re.compile(r"`(python [\w/]+\.py|pof3d \w+|\w+\.py) ")


def command_lines(page: Path) -> Iterator[str]:
    """Shell lines of fenced and indented blocks, and command lines within sentences."""
    for text in [*blocks(page, "sh"), *INDENTED.findall(prose(page))]:
        yield from re.sub(r"\\\n\s*", " ", text).splitlines()
    yield from (
        span.strip("`") for span in CODE_SPAN.findall(prose(page)) if IN_A_SENTENCE.match(span)
    )


def words_of(line: str) -> list[str]:
    """The parts of simple commands, without environment variables and torchrun's own options."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z0-9_]+=", words[0]):
        words = words[1:]
    if words and words[0] == "torchrun":
        words = words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]
    return words[1:] if words[:1] == ["python"] else words


EXAMPLES = {
    f"{name_of(page)}: {line.strip()[:70]}": words_of(line)
    for page in PAGES
    for line in command_lines(page)
    if words_of(line)
}


def module_and_arguments(words: list[str]) -> tuple[str, list[str]] | None:
    """The module in pof3d.commands that a command line calls; None: it is no command of ours."""
    name, *arguments = words[1:] if words[:2] == ["-m", "pof3d"] else words
    if name in PRESET_SCRIPTS:
        return "train", arguments
    if name == "pof3d" and arguments and not arguments[0].startswith("-"):
        return COMMANDS[arguments[0]][0], arguments[1:]
    if name.endswith(".py") and Path(name).stem in MODULES:
        return Path(name).stem, arguments
    return None


OURS = {key: found for key, words in EXAMPLES.items() if (found := module_and_arguments(words))}


@pytest.mark.parametrize("words", EXAMPLES.values(), ids=EXAMPLES)
def test_program_exists(words):
    name = words[0]
    if name == "-m":
        assert importlib.util.find_spec(words[1]), f"no module {words[1]}"
    elif name.endswith(".py"):
        assert (ROOT / name).is_file()
    elif "/" in name:
        assert (ROOT / name).stat().st_mode & 0o100, f"{name} cannot be executed"


@pytest.mark.parametrize("module, arguments", OURS.values(), ids=OURS)
def test_options_settings_and_metrics_exist(module, arguments):
    command = importlib.import_module(f"pof3d.commands.{module}").main
    if isinstance(command, click.Group) and arguments[:1] and arguments[0] in command.commands:
        command, arguments = command.commands[arguments[0]], arguments[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= known
    for option, value in zip(arguments, arguments[1:], strict=False):
        if option == "--set":
            assert value.partition("=")[0] in SETTINGS
        elif option == "--metrics":
            parse_names(value)
        elif option == "--cfg":
            assert value in {*PRESETS, *PRESET_ALIASES}


def test_examples_are_found():
    assert len(OURS) > 40 and {module for module, _ in OURS.values()} >= {"train", "convert"}
