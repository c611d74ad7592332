"""A file imports only from the tiers above its own (design, "Layers of the code"), or from its own folder.

Imports inside functions count; those under ``TYPE_CHECKING`` do not, since they never run.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "fxprune"

# Folders and loose files under fxprune, lowest first.
TIERS = (
    {"errors"},
    {"ir"},
    {"rules", "models"},
    {"capture"},
    {"coupling"},
    {"planning"},
    {"rewrite", "verification"},
    {"training"},
    {"results"},
    {"passes"},
    {"api"},
    {"report"},
    {"artefacts"},
    {"latency"},
    {"__init__"},
    {"cli"},
    {"__main__"},
)
LEVEL = {unit: level for level, units in enumerate(TIERS) for unit in units}

# Upward imports inside a function, each with its reason.
ALLOWED = {
    ("coupling", "report"): "Coupling.report() and to_html() are conveniences of the face; nothing computes with them",
    ("planning", "report"): "Plan._repr_html_(): what a notebook shows, and nothing computes with it",
    ("results", "report"): "Record._repr_html_(), likewise",
    ("verification", "report"): "Verification._repr_html_(), likewise",
    ("planning", "rewrite"): "Plan.optimizer() is a second way to write what the rewriter does",
}

# Upward imports that are still to go.
OWED: set[tuple[str, str]] = set()

# What design.md rules out by name, whatever the tiers.
NEVER = [("verification", "rewrite"), ("rewrite", "verification"),
         ("planning", "rules")]


def unit_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imported(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """The units that a file imports, and whether only inside a function."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fxprune":
            parts = node.module.split(".")
            if len(parts) > 1:
                yield parts[1], lazy
            else:
                yield from ((alias.name if alias.name in LEVEL else "__init__", lazy) for alias in node.names)
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "fxprune":
                    yield (parts[1] if len(parts) > 1 else "__init__"), lazy
        lazy = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, lazy)

    yield from walk(tree, False)


def violations(path: Path, text: str) -> list[str]:
    unit = unit_of(path)
    found = []
    for other, lazy in imported(ast.parse(text)):
        # Who has no tier is told so by a test of its own.
        if other == unit or LEVEL.get(other, -1) < LEVEL.get(unit, len(TIERS)):
            continue
        if lazy and (unit, other) in ALLOWED or (unit, other) in OWED:
            continue
        found.append(f"{path.relative_to(ROOT.parent)} imports fxprune.{other}, which is not above {unit}")
    return found


FILES = sorted(ROOT.rglob("*.py"))


def test_every_file_has_a_tier():
    missing = {unit_of(path) for path in FILES} - set(LEVEL)
    assert not missing, f"say in TIERS where these belong: {sorted(missing)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_above(path):
    assert violations(path, path.read_text()) == []


@pytest.mark.parametrize(("unit", "other"), NEVER)
def test_what_must_not_know_each_other(unit, other):
    for path in FILES:
        if unit_of(path) == unit:
            assert other not in {name for name, _ in imported(ast.parse(path.read_text()))}, path


@pytest.mark.parametrize(("text", "count"), [
    ("import fxprune.rewrite.emit", 1),
    ("from fxprune import rewrite", 1),
    ("def f():\n    from fxprune.cli.main import main", 1),
    ("from fxprune.errors import InputError", 0),
    ("from fxprune.ir.groups import Count", 0),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fxprune.rewrite import emit", 0),
])
def test_the_check_can_fail(text, count):
    assert len(violations(ROOT / "planning" / "budget.py", text)) == count
