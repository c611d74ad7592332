"""What a captured graph looks like apart from its numbers, and the numbers apart from what it looks like.

Two captures of one model at two sizes of its inputs are held against each other by it: the calls must be the same, and
every number the same, or what the first capture's expression says.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from fxprune.capture.laws import value
from fxprune.capture.sizes import Dim, renumbered
from fxprune.capture.traced import Traced

Path = tuple[Any, ...]
# The number of a call in a graph without its size nodes, and the path of one of its arguments.
Place = tuple[int, Path]


class Lengths(dict[Any, Any]):
    """The lengths of one capture's tensors: ``Dim`` -> int.

    Tensors are numbered as inputs first and then as the model's Python has asked for their shapes: that is alike in two
    captures, as long as it runs alike. Their numbers on the tape are not: operators may take other ways inside.
    """

    def __init__(self, traced: Traced):
        super().__init__()
        self.tensors = list(dict.fromkeys((*traced.tape.inputs, *traced.tensors)))
        self._numbers = {tensor: number for number, tensor in enumerate(self.tensors)}
        shapes = {ref.id: ref.shape for refs in traced.tape.nodes.values() for ref in refs.values()}
        shapes |= {number: tuple(tensor.shape) for number, tensor in traced.tensors.items()}
        self.shapes = [shapes[tensor] for tensor in self.tensors]

    def __missing__(self, dim: Dim) -> int:
        return self.shapes[dim.tensor][dim.dim]

    def named(self, expression: Any) -> Any:
        """With these numbers in place of the tape's."""
        return renumbered(expression, self._numbers.__getitem__)

    def other(self, there: "Lengths") -> set[Dim]:
        """The dimensions of the tape's tensors that are of another length there."""
        return {Dim(tensor, dim) for tensor, ours, theirs in zip(self.tensors, self.shapes, there.shapes, strict=True)
                for dim, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b}

    def of_tape(self, expression: Any) -> Any:
        """The reverse."""
        return renumbered(expression, self.tensors.__getitem__)


@dataclass(frozen=True)
class Outline:
    """One capture.

    Args:
        nodes: the calls' nodes.
        calls: what they are, numbers left out.
        numbers: every number that they are given.
        expressions: of the numbers that the graph computes from sizes.
        dtypes: every dtype that they are given; a node where it was read from a tensor.
        lengths: of the tensors.
        conditions: what the model's Python has asked of sizes, and the answer.
    """

    nodes: list[Node]
    calls: list[Any]
    numbers: dict[Place, Any]
    expressions: dict[Place, Any]
    dtypes: dict[Place, Any]
    lengths: Lengths
    conditions: dict[Any, Any]
    constants: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, traced: Traced) -> "Outline":
        nodes = [node for node in traced.graph.nodes if not _is_read(node)]
        lengths = Lengths(traced)
        numbers: dict[Place, Any] = {}
        expressions: dict[Place, Any] = {}
        dtypes: dict[Place, Any] = {}
        index: dict[Node, int] = {}
        calls = []
        for number, node in enumerate(nodes):
            index[node] = number
            for path, leaf in _leaves((node.args, node.kwargs), ()):
                if isinstance(leaf, Node) and "size" in leaf.meta:
                    expressions[number, path] = expression = lengths.named(leaf.meta["size"])
                    numbers[number, path] = value(expression, lengths)
                elif _is_dtype(leaf):
                    dtypes[number, path] = leaf
                elif isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
                    numbers[number, path] = leaf
            calls.append((node.op, _target(node, traced), *_text((node.args, node.kwargs), index)))
        conditions = {lengths.named(guard.fact): guard.value for guard in traced.guards}
        return cls(nodes, calls, numbers, expressions, dtypes, lengths, conditions, traced.constants)

    def steered(self, other: "Outline") -> Any:
        """The first condition on sizes that was answered otherwise there, or None."""
        return next((fact for fact, answer in self.conditions.items()
                     if fact in other.conditions and other.conditions[fact] != answer), None)

    def differs(self, other: "Outline") -> str:
        """What is not the same there, numbers left out; nothing, if that is nothing."""
        for node, ours, theirs in zip(self.nodes, self.calls, other.calls, strict=False):
            if ours != theirs:
                return f"{_shown(node)} is not what runs there"
        if len(self.calls) != len(other.calls):
            return f"{len(self.calls)} calls are made, and {len(other.calls)} there"
        for name, constant in self.constants.items():
            if not _equal(constant, other.constants.get(name)):
                users = next((n.users for n in self.nodes if n.target == name), {})
                return f"a constant that Python made{f' for {_shown(*users)}' if users else ''} is another one there"
        return ""

    def moved(self, other: "Outline") -> list[Place]:
        """Where a number is not what this capture lets expect."""
        return [place for place, number in other.numbers.items()
                if not _same(self._expected(place, other.lengths), number)]

    def _expected(self, place: Place, lengths: Lengths) -> Any:
        expression = self.expressions.get(place)
        try:
            return self.numbers[place] if expression is None else value(expression, lengths)
        except (KeyError, IndexError, ArithmeticError, ValueError):
            return None

    def shown(self, place: Place) -> str:
        return f"the number {self.numbers[place]!r} in {_shown(self.nodes[place[0]])}"


def numbered(arguments: Any, *computed: type) -> Iterator[tuple[Path, Any]]:
    """The places in arguments that hold a number, or what computes one: a node of a size, or something of these kinds.
    """
    for path, leaf in _leaves(arguments, ()):
        sized = isinstance(leaf, computed) or isinstance(leaf, Node) and "size" in leaf.meta
        if sized or isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
            yield path, leaf


def _is_read(node: Node) -> bool:
    """Whether it only reads a size or a dtype."""
    return "size" in node.meta or "dtype" in node.meta


def _is_dtype(leaf: Any) -> bool:
    return isinstance(leaf, torch.dtype) or isinstance(leaf, Node) and "dtype" in leaf.meta


def _leaves(tree: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, item in _items(tree):
        if isinstance(item, (tuple, list, dict, slice)):
            yield from _leaves(item, (*path, key))
        else:
            yield (*path, key), item


def _items(tree: Any) -> list[tuple[Any, Any]]:
    if isinstance(tree, slice):
        return [(name, getattr(tree, name)) for name in ("start", "stop", "step")]
    return list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))


def _text(tree: Any, index: Mapping[Node, int]) -> Iterator[Any]:
    """Everything but the numbers, flat: two trees that give the same are the same but for those."""
    for key, item in _items(tree):
        yield key
        if isinstance(item, (tuple, list, dict, slice)):
            yield type(item).__name__, len(_items(item))
            yield from _text(item, index)
        elif _is_dtype(item):
            yield "dtype"
        elif isinstance(item, Node):
            yield index.get(item, "number")
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            yield "number"
        else:
            yield item


def _target(node: Node, traced: Traced) -> Any:
    module = traced.added.get(node.target) if isinstance(node.target, str) else None
    return node.target if module is None else module.key


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and (a == b or a != a and b != b)


def _equal(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    return b is not None and a.shape == b.shape and a.dtype == b.dtype and (a.is_meta or torch.equal(a, b))


def _shown(node: Node) -> str:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    place = node.meta.get("source", "").rpartition("/")[2]
    return f"{name} ({place})" if place else str(name)
