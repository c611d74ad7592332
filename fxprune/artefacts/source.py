"""``model.py``: readable, standalone PyTorch source of an emitted module, and a `load` that gives it its weights.

The source is text made from the module's graph and from what its layers remember. It is run once before it is handed
on, and must give the same parts and, bit for bit, the same outputs.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Graph, GraphModule

from fxprune.artefacts.outputs import plain, record_names, without_records
from fxprune.artefacts.skeleton import INDENT, Skeleton
from fxprune.artefacts.statements import Statements
from fxprune.artefacts.weights import state_of
from fxprune.capture.call_signature import Marks
from fxprune.capture.holdings import hand_over
from fxprune.capture.pytrees import tree_leaves, tree_map_only, tree_structure
from fxprune.capture.torch_functions import ASSERT
from fxprune.errors import UnsupportedError
from fxprune.ir import comparison
from fxprune.rewrite.emitted import graphs_of, marks_of

_IMPORTS = (("math.", "import math"), ("operator.", "import operator"))

_PARTS = '''

class Parts(nn.Module):
    """Modules, parameters and buffers under their names; ``parts[0]`` is the one that is called "0"."""

    def __init__(self, /, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def __getitem__(self, name):
        return getattr(self, str(name))
'''

_LOAD = '''

def load(folder=None):
    """The model with the weights that lie in a folder (this file's own), in inference mode."""
    folder = Path(__file__).parent if folder is None else Path(folder)
    weights = load_file(folder / "weights.safetensors")
    model = Model()
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    if own.keys() != weights.keys():
        raise ValueError(f"weights.safetensors is not of this model: {sorted(own.keys() ^ weights.keys())[:3]}")
    with torch.no_grad():
        for name, tensor in own.items():
            if (tensor.shape, tensor.dtype) != (weights[name].shape, weights[name].dtype):
                raise ValueError(f"weights.safetensors is not of this model: {name}")
            tensor.copy_(weights[name])
    return model.eval()
'''


def source_of(small: GraphModule, title: str) -> str:
    """The text of ``model.py``.

    Args:
        small: an emitted module.
        title: the first line of the file's docstring.

    Raises:
        UnsupportedError: it holds what only the user's own code can make: autograd functions, other packages'
            operators, classes and hooks.
    """
    skeleton = Skeleton(_root(small))
    init = list(skeleton.lines())
    tuples: dict[str, tuple[str, ...]] = {}
    forward = list(_forward(small, skeleton, tuples))
    body = ["class Model(nn.Module):", *_indented(_docstring(small), 1), "", f"{INDENT}def __init__(self):",
            f"{INDENT * 2}super().__init__()", *_indented(init, 2)]
    if skeleton.items:
        body += ["", f"{INDENT}def __getitem__(self, name):", f"{INDENT * 2}return getattr(self, str(name))"]
    body += [*_indented(_train(small, skeleton), 1), *_indented(forward, 1)]
    text = "\n".join(line.rstrip() for line in body) + "\n" + _LOAD
    defined = "".join(f"\n{name} = namedtuple({name!r}, {fields!r})\n" for name, fields in tuples.items())
    title = " ".join(title.replace("\\", "/").replace('"', "'").split())
    parts = _PARTS if skeleton.parts else ""
    return f'"""{title}"""\n\n{_imports(text + defined)}{defined}{parts}\n\n{text}'


def check_source(text: str, small: nn.Module, example: Any) -> None:
    """Run the text, and hold what it makes against the emitted module: parts, and outputs in both modes.

    Raises:
        UnsupportedError: they differ.
    """
    space: dict[str, Any] = {"__name__": "model"}
    try:
        # Our own text, of a model that runs in this process already.
        exec(compile(text, "model.py", "exec"), space)
        model = space["Model"]()
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise UnsupportedError(f"standalone source of this model does not run ({type(error).__name__}: {words})"
                               ) from error
    ours, theirs = state_of(model), state_of(small)
    if list(model.state_dict()) != list(small.state_dict()) or ours.keys() != theirs.keys():
        raise UnsupportedError("standalone source gives its parts other names than the compressed model")
    with torch.no_grad():
        for name, tensor in ours.items():
            if (tensor.shape, tensor.dtype) != (theirs[name].shape, theirs[name].dtype):
                raise UnsupportedError(f"standalone source gives {name!r} another shape than the compressed model")
            tensor.copy_(theirs[name])
    states = {name: tensor.clone() for name, tensor in theirs.items()}
    for training in (False, True):
        outputs = []
        for module in (small, model):
            _restore(module, states)
            outputs.append(run(module.train(training), example))
        if isinstance(outputs[0], str) and not training:
            raise UnsupportedError(f"standalone source cannot be checked: the compressed model raises {outputs[0]} on "
                                   "inputs like those it was captured on")
        if not identical(*outputs):
            raise UnsupportedError(f"standalone source computes something else than the compressed model in "
                                   f"{'train' if training else 'eval'} mode")


def run(module: Any, example: Any) -> Any:
    """Outputs on copies of the inputs, from a fixed random state, or the error's type."""
    args, kwargs = tree_map_only(torch.Tensor, torch.clone, example)
    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            return module(*args, **kwargs)
        except Exception as error:
            return type(error).__name__
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)


def identical(a: Any, b: Any) -> bool:
    """Whether two outputs agree bit for bit, but for the classes of their containers; NaN equals NaN."""
    a, b = plain(a), plain(b)
    return tree_structure(a) == tree_structure(b) and all(map(_identical, tree_leaves(a), tree_leaves(b)))


def _identical(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return type(a) is type(b) and a == b
    return comparison.identical(a, b)


def _restore(module: nn.Module, states: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in state_of(module).items():
            tensor.copy_(states[name])


def _root(small: GraphModule) -> nn.Module:
    """What the module holds, without its class."""
    return hand_over(small, nn.Module())


def _docstring(small: GraphModule) -> list[str]:
    params = sum(p.numel() for p in small.parameters())
    about = f"{type(small).__name__.removesuffix('Module')}, pruned: {params:,} parameters."
    records = record_names(small.graph)
    if not records:
        return [f'"""{about}"""']
    return [f'"""{about}', "", f"Returns a dictionary of the fields of {', '.join(records)}.", '"""']


def _forward(small: GraphModule, skeleton: Skeleton, tuples: dict[str, tuple[str, ...]]) -> Iterator[str]:
    graphs, marks = tuple(map(without_records, graphs_of(small))), marks_of(small)
    if len(graphs) == 1:
        yield from _function("forward", graphs[0], skeleton, tuples, marks)
        return
    evaluated, trained = (Statements(graph, skeleton.reach, tuples) for graph in graphs)
    names, others = evaluated.arguments(), trained.arguments()
    refusal = _refusal(graphs[1])
    if refusal is None and names != others:
        raise UnsupportedError("standalone source needs the same arguments in both modes")
    passed = ", ".join(_passed([name.partition("=")[0] for name in names], marks.star))
    yield from ("", f"def forward({', '.join(['self', *marks.among(names)])}):")
    yield f"{INDENT}if self.training:"
    # The error that the compressed model's own assertion raises.
    yield f"{INDENT * 2}raise AssertionError({refusal!r})" if refusal else f"{INDENT * 2}return self._trained({passed})"
    yield f"{INDENT}return self._evaluated({passed})"
    yield from _function("_evaluated", graphs[0], skeleton, tuples, marks)
    if refusal is None:
        yield from _function("_trained", graphs[1], skeleton, tuples, marks)


def _refusal(graph: Graph) -> str | None:
    """What a training graph says that could not be captured."""
    first = next((n for n in graph.nodes if n.op == "call_function"), None)
    if first is None or first.target is not ASSERT or first.args[0] is not False:
        return None
    return str(first.args[1])


def _passed(names: list[str], star: int) -> Iterator[str]:
    """Arguments handed on; behind ``*args``, and from the place of a bare star on, by keyword."""
    starred = (place + 1 for place, name in enumerate(names) if name.startswith("*"))
    first = star if star >= 0 else next(starred, len(names))
    yield from names[:first]
    yield from (name if name.startswith("**") else f"{name}={name}" for name in names[first:])


def _function(name: str, graph: Graph, skeleton: Skeleton, tuples: dict[str, tuple[str, ...]], marks: Marks
              ) -> Iterator[str]:
    statements = Statements(graph, skeleton.reach, tuples)
    arguments = statements.arguments()
    lines = list(statements.lines())
    yield from ("", f"def {name}({', '.join(['self', *marks.among(arguments)])}):")
    # An empty line at the start of a function separates nothing.
    yield from _indented(lines[1:] if lines and not lines[0] else lines, 1)


def _train(small: GraphModule, skeleton: Skeleton) -> list[str]:
    held = getattr(small, "held", ())
    if not held:
        return []
    parts = ", ".join(map(skeleton.reach, held)) + ("," if len(held) == 1 else "")
    return ["", "def train(self, mode=True):", f"{INDENT}super().train(mode)", f"{INDENT}for part in ({parts}):",
            f"{INDENT * 2}part.eval()", f"{INDENT}return self"]


def _indented(lines: list[str], depth: int) -> Iterator[str]:
    for line in lines:
        for part in line.split("\n"):
            yield INDENT * depth + part if part else ""


def _imports(text: str) -> str:
    lines = [line for use, line in _IMPORTS if use in text]
    lines += ["from collections import namedtuple"] if "= namedtuple(" in text else []
    lines += ["from pathlib import Path", "", "import torch"]
    if "torch.ops.torchvision." in text:
        lines.append("import torchvision  # noqa: F401, registers its operators")
    lines += ["from safetensors.torch import load_file", "from torch import nn"]
    if "F." in text:
        lines.append("from torch.nn import functional as F")
    return "\n".join(lines) + "\n"
