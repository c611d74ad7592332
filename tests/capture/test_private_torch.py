"""Private names of PyTorch: each is on one list, is there in the installed torch, and is used in ``capture/`` alone."""

import ast
import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from fxprune.capture.private_torch import PRIVATE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fxprune"
FILES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
# Of what only an instance has, one.
INSTANCES = {"torch.nn.Module": nn.Module, "torch.autocast": lambda: torch.autocast("cpu"),
             "torch.nn.MultiheadAttention": lambda: nn.MultiheadAttention(4, 2),
             "torch.UntypedStorage": lambda: torch.zeros(1).untyped_storage()}
# Private by their look alone: of Python itself, and of named tuples.
PYTHON = {"_getframe", "_fields"}


def there(name: str) -> bool:
    owner, _, last = name.rpartition(".")
    if owner in INSTANCES:
        return hasattr(INSTANCES[owner](), last)
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            value = getattr(value, part, None)
        return value is not None
    return False


@pytest.mark.parametrize("private", PRIVATE, ids=lambda private: private.name)
def test_the_installed_torch_has_it(private):
    assert there(private.name), (f"torch {torch.__version__} has no {private.name} any more ({private.use}); without "
                                 f"it goes: {private.without}")


def test_what_is_not_there_is_told():
    assert not there("torch.nn.Module._of_no_release") and not there("torch.fx._of_no_release.name")


def private_parts(name: str) -> set[str]:
    return {part for part in name.split(".") if part.startswith("_")}


def own_names() -> set[str]:
    """Private names that the package itself gives."""
    names = set()
    for text in FILES.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {part.attr for target in targets for part in ast.walk(target)
                          if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name)}
    return names


def used(text: str) -> set[str]:
    """Private names in imports from torch, behind a dot (of anything but ``self`` and ``cls``) and in strings."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("torch", "torchvision"):
            names |= {part for path in (node.module, *(alias.name for alias in node.names))
                      for part in private_parts(path)}
        elif isinstance(node, ast.Import):
            names |= {part for alias in node.names if alias.name.startswith("torch") for part in
                      private_parts(alias.name)}
        elif isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name)
                                                      and node.value.id in ("self", "cls")):
            names |= private_parts(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= {node.value} & LISTED
    return {name for name in names if not name.startswith("__")}


LISTED = {part for private in PRIVATE for part in private_parts(private.name)}
OWN = own_names() - LISTED


@pytest.mark.parametrize("path", FILES)
def test_a_file_uses_only_what_it_may(path):
    names = used(FILES[path]) - OWN - PYTHON
    if path.startswith("capture/"):
        assert names <= LISTED, f"put into fxprune/capture/private_torch.py: {sorted(names - LISTED)}"
        return
    assert not names, f"private names of torch belong into capture/: {sorted(names)}"


def test_what_is_listed_is_used():
    everything = set().union(*(used(text) for path, text in FILES.items() if path != "capture/private_torch.py"))
    assert everything >= LISTED


@pytest.mark.parametrize("text", [
    "from torch.utils._pytree import tree_map", "from torch.fx import _lazy", "import torch._dynamo", "x = torch._ops",
    "x = module._parameters", "x = vars(module)['_buffers']",
])
def test_the_check_can_fail(text):
    assert used(text)


def test_the_table_in_the_notes_is_the_list():
    notes = (ROOT / "docs" / "notes.md").read_text()
    for private in PRIVATE:
        assert f"| `{private.name}` | {private.use} | {private.without} |" in notes
