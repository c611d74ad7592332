"""Which numbers in a graph are attributes of modules: ``self.num_heads``, ``self.split[1]``, ``self.config.groups``.

The model is run once more. In the copy that runs, every integer that a module holds (or its class, or a tuple, a
dictionary or an object of plain values that it holds) is an integer that remembers its address, as sizes remember what
they were computed from: so a number that reaches a call is an expression of attributes and sizes. Objects that several
modules share are copied for each, so that an address names the module that reads.
"""

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from fxprune.capture.call_forms import is_leaf
from fxprune.capture.capturing import Captured
from fxprune.capture.holdings import HOLDINGS
from fxprune.capture.model_walk import named_modules
from fxprune.capture.outline import Outline
from fxprune.capture.retracing import retraced
from fxprune.capture.sizes import Attribute, Book, Dim, attributes_in, leaves
from fxprune.capture.traced import Traced
from fxprune.errors import CaptureError

_NO_RECORDS = (torch.Tensor, ModuleType, Enum, str, bytes, int, float)
# How deep in what a module holds a number may lie.
DEPTH = 4


@dataclass(frozen=True, eq=False)
class Attributed:
    """A run in which numbers say which attributes they are made of.

    Args:
        outline: of the run, dead calls included.
        positions: of the captured graph's calls among those.
        read: the attributes whose bare number other code than Python's arithmetic reads, as `math.sqrt` does.
        failed: why attributes could not be told from literals, where they could not.
        sizes: the lengths of tensors whose bare number such code reads.
    """

    outline: Outline
    positions: tuple[int, ...]
    read: frozenset[Attribute] = frozenset()
    failed: str = ""
    sizes: frozenset[Dim] = frozenset()

    @property
    def attributes(self) -> frozenset[Attribute]:
        """All that the run reads."""
        return self.read.union(*map(attributes_in, self.outline.expressions.values()))


def attributed(model: nn.Module, captured: Captured, device: torch.device) -> dict[str, Attributed]:
    """For each mode that was captured, the run that shows where its numbers come from.

    Raises:
        CaptureError: the model does not run again as it was captured.
    """
    known: dict[int, Attributed] = {}
    for mode, traced in captured.modes.items():
        if id(traced) not in known:
            known[id(traced)] = _attributed(model, captured, mode, device)
    return {mode: known[id(traced)] for mode, traced in captured.modes.items()}


def _attributed(model: nn.Module, captured: Captured, mode: str, device: torch.device) -> Attributed:
    """First with all integers marked; where an object of the model does not bear that, with those that modules hold
    themselves; then with none."""
    failed = ""
    for inside in (True, False, None):
        rerun = retraced(model, captured, mode, device, _marker(inside))
        failed = failed or (f"{type(rerun.error).__name__}: {rerun.error}" if rerun.error else "")
        if rerun.error is None:
            found = _aligned(captured.modes[mode], rerun.traced)
            if found is not None:
                read = [found[0].lengths.named(expression) for expression in rerun.traced.read]
                return Attributed(*found, frozenset(at for expression in read for at in attributes_in(expression)),
                                  failed if inside is None else "",
                                  frozenset(leaf for expression in read for leaf in leaves(expression)))
            failed = failed or "the run with marked attributes was another one"
    raise CaptureError(f"the model must run twice alike, and did not ({failed}); form=\"graph\" does not need that")


def _aligned(graph: Traced, again: Traced) -> tuple[Outline, tuple[int, ...]] | None:
    """Where the graph's calls stand in the other run, which has dead ones besides; None where they do not."""
    base, other = Outline.of(graph), Outline.of(again)
    ran = graph.tape.ran or graph.tape.calls
    if [call.op for call in ran] != [call.op for call in again.tape.calls]:
        return None
    positions: list[int] = []
    start = 0
    for node in base.nodes:
        wanted = _identity(graph, node)
        found = next((k for k in range(start, len(other.nodes)) if _identity(again, other.nodes[k]) == wanted), -1)
        if found < 0 and node.target is not operator.getitem:  # an item may have been read for a size alone
            return None
        positions.append(found)
        start = max(start, found + 1)
    return other, tuple(positions)


def _identity(traced: Traced, node: Node) -> tuple[Any, ...]:
    """What a call is, and which tensors it gives, by their numbers on the tape."""
    target = "" if node.target in traced.added else node.target
    return node.op, target, tuple(ref.id for ref in traced.tape.nodes.get(node.name, {}).values())


def _marker(inside: bool | None) -> Callable[[nn.Module, Book], None]:
    return lambda root, book: None if inside is None else mark(root, book, inside)


def mark(root: nn.Module, book: Book, inside: bool = True) -> None:
    """Let every integer that a copy's modules hold remember its address.

    Args:
        root: is changed.
        book: makes those integers.
        inside: those in objects that modules hold, too.
    """
    seen: set[int] = set()
    for path, module in named_modules(root):
        if not is_leaf(module) and id(module) not in seen:
            seen.add(id(module))
            vars(module).update(_marked(path, _own(module), book, inside))


def _own(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module holds besides parameters, buffers, submodules and hooks; integers of its class included."""
    held = vars(module)
    for kind in type(module).__mro__:
        if kind.__module__.startswith("torch."):
            break
        yield from ((name, value) for name, value in vars(kind).items()
                    if type(value) is int and not name.startswith("__") and name not in held)
    # What fxprune itself keeps with a result, its record, is none of the model's.
    yield from ((name, value) for name, value in held.items() if name not in HOLDINGS and name != "training"
                and type(value).__module__.partition(".")[0] != "fxprune")


def _marked(path: str, own: Iterator[tuple[str, Any]], book: Book, inside: bool) -> Mapping[str, Any]:
    found = {}
    for name, value in list(own):
        new = _with_addresses(value, Attribute(path, (name,), 0), book, DEPTH if inside else 0)
        if new is not value:
            found[name] = new
    return found


def _with_addresses(value: Any, at: Attribute, book: Book, depth: int) -> Any:
    """The same with every integer marked; the very same where there is none."""
    if type(value) is int:
        return book.size(value, Attribute(at.module, at.keys, value))
    if type(value) in (tuple, list, torch.Size):
        items = [_with_addresses(item, _inside(at, key), book, depth - 1) for key, item in enumerate(value)]
        return value if _same_items(items, value) else type(value)(items)
    if depth <= 0 or not (type(value) is dict or is_plain_object(value)):
        return value
    held = value if type(value) is dict else vars(value)
    inside = {key: _with_addresses(item, _inside(at, key), book, depth - 1) for key, item in held.items()}
    if _same_items(inside.values(), held.values()):
        return value
    if type(value) is dict:
        return inside
    new = copy.copy(value)
    if new is value or type(new) is not type(value):
        return value  # one of its kind
    vars(new).update(inside)
    return new


def _inside(at: Attribute, key: Any) -> Attribute:
    return Attribute(at.module, (*at.keys, key), 0)


def _same_items(new: Any, old: Any) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))


def is_plain_object(value: Any) -> bool:
    """Whether an object is a mere record of values: a configuration, a namespace, a dataclass."""
    if not hasattr(value, "__dict__") or callable(value) or isinstance(value, _NO_RECORDS):
        return False
    return not type(value).__module__.startswith(("torch.", "builtins"))


