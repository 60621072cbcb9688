"""Write the pages of docs/ that repeat what the code says; a test fails when they are stale.

python docs/generate.py                     settings.md, commands.md, api.md
python -m tests.parity tests/data/parity > parity.txt
python docs/generate.py --parity parity.txt              parity.md as well
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pydantic

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))  # run as a script, the code beside docs/ is meant

import pof3d  # noqa: E402
from dnnlib import UserError  # noqa: E402
from pof3d.__main__ import COMMANDS  # noqa: E402
from training.config import Config, describe_settings  # noqa: E402
from training.presets import PRESETS  # noqa: E402

SECTION_HEADING = re.compile(r"(Args|Returns|Raises|Attributes|Yields):")
HELP_WIDTH = 100
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3  # of tests/parity.py
# What the files of reference tensors hold, by the beginning of their names.
FIXTURES = {
    "cameras": "poses, mirrors, intrinsics, rays",
    "ops": "resampling, activations, convolutions, and their gradients",
    "renderer_": "tri-plane lookup, decoder, volume rendering, and their gradients",
    "networks_": "G and D at full size, 128 px: outputs for given parameters",
    "loss_": "one training step: the reports of all four phases and every parameter's gradient",
}


class Quantity(NamedTuple):
    """One comparison with the reference, as `python -m tests.parity` prints it."""

    ok: bool
    error: float
    tolerance: float
    fixture: str


# --- Settings


def settings_page() -> str:
    """Every setting by section, and what each preset changes."""
    lines = [
        "# Settings",
        "",
        _origin("the fields of `training/config.py`"),
        "",
        "`train.py --set section.field=value` changes any of them; values are JSON, lists may be "
        "written with commas alone (`--set camera.init_std=0.4,0.2`). `train.py --help-settings` "
        "prints this list, `--dry-run` the settings of a run. Options such as `--gamma` are "
        "shorthands, see [command lines](commands.md). Unless a name says degrees, angles are "
        "radians; *world units* are those of [camera conventions](cameras.md).",
    ]
    section = ""
    for name, default, description in describe_settings():
        if name.partition(".")[0] != section:
            section = name.partition(".")[0]
            summary = inspect.getdoc(Config.model_fields[section].annotation) or ""
            lines += ["", f"## {section}", "", summary, "", "| setting | default | meaning |"]
            lines += ["| --- | --- | --- |"]
        lines.append(f"| `{name}` | `{_cell(default)}` | {_cell(description)} |")
    return "\n".join([*lines, "", *_presets()]) + "\n"


def _presets() -> Iterator[str]:
    """What differs from the defaults, by preset."""
    yield "## Presets"
    yield ""
    yield "`--cfg` chooses one. What differs from the defaults above:"
    for name, preset in PRESETS.items():
        yield f"\n**{name}**\n"
        yield "| setting | value |"
        yield "| --- | --- |"
        changed = preset.model_dump(mode="json", exclude_defaults=True)
        for section, fields in changed.items():
            if isinstance(fields, dict):
                yield from (f"| `{section}.{key}` | `{value}` |" for key, value in fields.items())


# --- Command lines


def commands_page() -> str:
    """The help of every command."""
    lines = [
        "# Command lines",
        "",
        _origin("the commands' `--help`"),
        "",
        "`pof3d NAME` is there after `pip install .`; in a checkout the scripts of the second "
        "column do the same.",
        "",
        "| command | script | |",
        "| --- | --- | --- |",
    ]
    for name, (module, text) in COMMANDS.items():
        script = f"`python {module}.py`" if (ROOT / f"{module}.py").exists() else ""
        lines.append(f"| [`pof3d {name}`](#pof3d-{name}) | {script} | {text} |")
    for name, (module, _) in COMMANDS.items():
        command = importlib.import_module(f"pof3d.commands.{module}").main
        lines += _help(command, f"pof3d {name}", "##")
    return "\n".join(lines) + "\n"


def _help(command: click.Command, name: str, heading: str) -> list[str]:
    context = click.Context(command, info_name=name, terminal_width=HELP_WIDTH)
    lines = ["", f"{heading} {name}", "", "```text", command.get_help(context), "```"]
    for sub in getattr(command, "commands", {}).values():
        lines += _help(sub, f"{name} {sub.name}", heading + "#")
    return lines


# --- Python API


def api_page() -> str:
    """Signatures and docstrings of the public names."""
    lines = [
        "# Python API",
        "",
        _origin("docstrings"),
        "",
        "These names of the package `pof3d` are public. They are loaded when first used, so "
        "`import pof3d` takes no time. All others may change between versions. Shapes are in "
        "brackets: B objects, V views, images of R pixels a side, raw renderings of r. The README "
        "has an example.",
    ]
    for name in pof3d.__all__:
        lines += ["", *_documented(name, getattr(pof3d, name), "##")]
    return "\n".join(lines) + "\n"


def _documented(name: str, thing: Any, heading: str) -> Iterator[str]:
    yield f"{heading} {name}"
    yield ""
    yield from ["```text", f"{name.rpartition('.')[2]}{_signature(thing)}", "```", ""]
    yield from _markdown(_docstring(thing))
    if inspect.isclass(thing):
        for method, function in _own_methods(thing):
            yield ""
            yield from _documented(f"{name}.{method}", function, heading + "#")


def _docstring(thing: Any) -> str:
    doc = inspect.getdoc(thing) or ""
    if inspect.isclass(thing) and issubclass(thing, tuple) and "Alias for field" in doc:
        return ""
    return doc


def _own_methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods that the class itself defines, with what they say."""
    for name, member in vars(cls).items():
        function = getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
            yield name, function


def _signature(thing: Any) -> str:
    """Parameters by name and default; their types are in the docstring, with shapes."""
    if inspect.isclass(thing) and issubclass(thing, pydantic.BaseModel):
        return "(…)"  # its fields are listed in settings.md
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return "(…)"
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return str(inspect.Signature(parameters))


def _markdown(docstring: str) -> Iterator[str]:
    """A docstring of google's convention as Markdown: sections in bold, their entries as a list."""
    section = None
    for line in docstring.splitlines():
        if match := SECTION_HEADING.fullmatch(line.strip()):
            section = match[1]
            yield from (f"**{section}**", "")
        elif section in ("Returns", "Yields"):  # one text, no entries
            yield line.strip()
        elif section and re.match(r"    \S", line):
            yield "* " + re.sub(r"^(\w+):", r"`\1`:", line.strip())
        elif section and line.startswith("        "):
            yield "  " + line.strip()
        else:
            yield line


# --- Agreement with the published code


def parity_page(report: str) -> str:
    """What `python -m tests.parity` printed, as a table by file."""
    quantities = list(_quantities(report))
    if not quantities:
        raise UserError("the report holds no line of `python -m tests.parity`")
    missed = sum(not quantity.ok for quantity in quantities)
    lines = [
        "# Agreement with the published code",
        "",
        _origin("the output of `python -m tests.parity tests/data/parity`"),
        "",
        f"{len(quantities)} quantities are compared with tensors that the published implementation "
        f"computed; {missed} exceed their tolerance. Errors are relative, in float32 on the CPU. "
        "A gradient below a millionth of its phase's largest is compared with that one. Where a "
        "unit of D lies on the kink of its activation, the slope that the reference took is tried "
        "as well (`tests/kinks.py`). The tests run the same comparisons.",
        "",
        "| file | holds | compared | missed | largest error of outputs (tolerance 1e-4) "
        "| of gradients (1e-3) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for fixture in dict.fromkeys(quantity.fixture for quantity in quantities):
        lines.append(_row(fixture, [q for q in quantities if q.fixture == fixture]))
    return "\n".join([*lines, "", *_beyond_parity()]) + "\n"


def _quantities(report: str) -> Iterator[Quantity]:
    pattern = r"^(ok|MISS) +(\S+)  \(at most (\S+)\)  .*  \[(\w+)\]$"
    for verdict, error, tolerance, fixture in re.findall(pattern, report, re.M):
        yield Quantity(verdict == "ok", float(error), float(tolerance), fixture)


def _row(fixture: str, quantities: list[Quantity]) -> str:
    def largest(tolerance: float) -> str:
        errors = [q.error for q in quantities if q.tolerance == tolerance]
        return f"{max(errors):.1e}" if errors else ""

    holds = next((text for start, text in FIXTURES.items() if fixture.startswith(start)), "")
    missed = sum(not quantity.ok for quantity in quantities)
    outputs, gradients = largest(OUTPUT_TOLERANCE), largest(GRADIENT_TOLERANCE)
    return f"| `{fixture}` | {holds} | {len(quantities)} | {missed} | {outputs} | {gradients} |"


def _beyond_parity() -> Iterable[str]:
    return [
        "Old checkpoints have tests of their own: `tests/training/files/test_legacy.py` loads a "
        "`.pkl` of PoF3D and one of EG3D, and compares what their networks compute. "
        "[GeoD](geod.md#agreement-with-the-published-code) has a table of its own. "
        "[Method](method.md#differences-from-the-published-code) lists the intended differences, "
        "which these comparisons switch off."
    ]


# --- Writing


def pages() -> dict[str, str]:
    """File name -> content of all pages that the code alone determines."""
    return {
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "api.md": api_page(),
    }


def _origin(source: str) -> str:
    return f"*This page is generated from {source} by `docs/generate.py`.*"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


@click.command()
@click.option(
    "--parity",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Output of `python -m tests.parity tests/data/parity`; writes parity.md as well.",
)
def main(parity: Path | None) -> None:
    """Write the generated pages."""
    written = pages()
    if parity is not None:
        written["parity.md"] = parity_page(parity.read_text())
    for name, text in written.items():
        (DOCS / name).write_text(text)
        click.echo(f"docs/{name}")


if __name__ == "__main__":
    main()
