"""The house holds together: what imports what, who reads whose private names, and what files are called.

Imports under ``TYPE_CHECKING`` do not count, since they never run.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import networkx as nx
import pytest
from torch import nn
from torch.fx import Graph, GraphModule

import fxprune

ROOT = Path(__file__).parents[1] / "fxprune"

# Folders and loose files under fxprune, lowest first: a file imports only from the tiers above its own (design, "Layers
# of the code"), or from its own folder.
TIERS = (
    {"errors", "interrupts"},
    {"ir"},
    {"rules", "models"},
    {"capture"},
    {"coupling"},
    {"planning"},
    {"rewrite", "verification"},
    {"training"},
    {"results"},
    {"passes"},
    {"latency", "gradual"},
    {"api"},
    {"searching"},
    {"report"},
    {"artefacts", "pruning_callback"},
    {"shards"},
    {"__init__"},
    {"cli"},
    {"__main__"},
)
LEVEL = {unit: level for level, units in enumerate(TIERS) for unit in units}

# What design.md rules out by name, whatever the tiers.
NEVER = [("verification", "rewrite"), ("rewrite", "verification"), ("planning", "rules")]

# Packages that are imported where they are needed: optional extras, and what is heavy and only some calls want.
LATE = {"accelerate", "jinja2", "lightning", "matplotlib", "onnxruntime", "optuna", "safetensors", "timm",
        "torchvision", "tqdm", "transformers"}

# Files that share a base name, because they do the same for two things.
NAMESAKES = {"registry": "what is known by name: the rules by operator, the criteria by what users write"}

# Names that say how a file came about, and not what a reader looks for.
FORBIDDEN = {"alike", "around", "common", "helpers", "misc", "parts", "places", "settled", "utils"}

FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def unit_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def imported(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """What a file imports, as dotted names, and whether only inside a function."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    if isinstance(tree, ast.ImportFrom) and tree.module:
        yield from ((f"{tree.module}.{alias.name}", lazy) for alias in tree.names)
    if isinstance(tree, ast.Import):
        yield from ((alias.name, lazy) for alias in tree.names)
    lazy = lazy or isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for child in ast.iter_child_nodes(tree):
        yield from imported(child, lazy)


def ours(name: str) -> bool:
    return name.split(".")[0] == "fxprune"


def unit_named(name: str) -> str:
    """The unit that a dotted name lies in; what fxprune itself hands on comes from its ``__init__``."""
    first = name.split(".")[1] if "." in name else "__init__"
    return first if first in LEVEL else "__init__"


def upward(path: Path, tree: ast.AST) -> list[str]:
    unit = unit_of(path)
    return [f"{path.relative_to(ROOT.parent)} imports {name}, which is not above {unit}" for name, _ in imported(tree)
            if ours(name) and unit_named(name) != unit and LEVEL[unit_named(name)] >= LEVEL.get(unit, -1)]


def lazy(tree: ast.AST) -> set[str]:
    """What is imported inside a function and may not be."""
    return {name for name, late in imported(tree) if late and name.split(".")[0] not in LATE}


def circles(trees: dict[str, ast.AST]) -> list[set[str]]:
    """Modules that import one another."""
    graph = nx.DiGraph()
    for module, tree in trees.items():
        for name, _ in imported(tree):
            if ours(name):
                graph.add_edge(module, name if name in MODULES else name.rpartition(".")[0])
    return [set(found) for found in nx.strongly_connected_components(graph) if len(found) > 1]


# nn.Module's and GraphModule's own: they are nobody's of ours.
TORCHS = set(dir(GraphModule(nn.Module(), Graph())))


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in TORCHS


def owned(tree: ast.AST) -> Iterator[str]:
    """The private names that a file's classes define: methods, fields, attributes."""
    for body in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for node in ast.walk(body):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.name
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr


def intruders(trees: dict[Path, ast.AST]) -> list[str]:
    """Where a file reads a private name that only another folder's classes define, or imports one."""
    owners: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for name in filter(private, owned(tree)):
            owners[name].add(unit_of(path))
    found = []
    for path, tree in trees.items():
        read = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        found += [f"{path.name} reads {name}, which {sorted(owners[name])} own" for name in read
                  if name in owners and unit_of(path) not in owners[name]]
        found += [f"{path.name} imports {name}" for name, _ in imported(tree)
                  if ours(name) and private(name.rpartition(".")[2])]
    return found


def test_every_file_has_a_tier():
    missing = {unit_of(path) for path in FILES} - set(LEVEL)
    assert not missing, f"say in TIERS where these belong: {sorted(missing)}"


def test_no_two_tests_share_a_name():
    """pytest imports them by their base name."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_above_and_at_its_head(path):
    assert upward(path, TREES[path]) == []
    assert lazy(TREES[path]) == set()


@pytest.mark.parametrize(("unit", "other"), NEVER)
def test_what_must_not_know_each_other(unit, other):
    for path in FILES:
        if unit_of(path) == unit:
            assert other not in {unit_named(name) for name, _ in imported(TREES[path]) if ours(name)}, path


def test_no_modules_import_one_another():
    assert circles({module_of(path): tree for path, tree in TREES.items()}) == []


def test_no_folder_reads_another_s_private_names():
    assert intruders(TREES) == []


def test_files_are_called_after_what_they_hold():
    places: dict[str, list[Path]] = defaultdict(list)
    for path in FILES:
        places[path.stem].append(path)
    assert {stem for stem, paths in places.items() if len(paths) > 1} - {"__init__"} == set(NAMESAKES)
    assert not FORBIDDEN & places.keys()
    public = {name for name in fxprune.__all__ if isinstance(getattr(fxprune, name), FunctionType)}
    assert len(public) > 9
    assert not public & {*places, *(path.name for path in ROOT.rglob("*") if path.is_dir())}


@pytest.mark.parametrize(("text", "count"), [
    ("import fxprune.rewrite.emit", 1),
    ("from fxprune import rewrite", 1),
    ("from fxprune import analyze", 1),
    ("def f():\n    from fxprune.cli.main import main", 1),
    ("from fxprune.errors import InputError", 0),
    ("from fxprune.ir.costs import Count", 0),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fxprune.rewrite import emit", 0),
])
def test_the_check_of_tiers_can_fail(text, count):
    assert len(upward(ROOT / "planning" / "budget.py", ast.parse(text))) == count


def test_the_check_of_late_imports_can_fail():
    assert lazy(ast.parse("def f():\n    import tqdm, json\n    from fxprune.errors import InputError")) == \
        {"json", "fxprune.errors.InputError"}


def test_the_check_of_circles_can_fail():
    texts = {"fxprune.ir.files": "from fxprune.ir import frozen", "fxprune.ir.frozen": "import fxprune.ir.files"}
    assert circles({name: ast.parse(text) for name, text in texts.items()}) == [set(texts)]


@pytest.mark.parametrize("text", ["def f(a):\n    return a._secret", "from fxprune.ir.frozen import _Hidden"])
def test_the_check_of_private_names_can_fail(text):
    owner = "class A:\n    _secret: int = 0\nclass B:\n    def __init__(self):\n        self._modules = {}"
    reader = text + "\ndef g(b):\n    return b._modules"
    trees = {ROOT / "ir" / "frozen.py": ast.parse(owner), ROOT / "planning" / "draw.py": ast.parse(reader)}
    assert len(intruders(trees)) == 1
