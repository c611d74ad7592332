"""Every number that the calls of a graph are given under a plan: what the graph form writes there, and what the model's
own Python must come to in the module form, as an equation over the attributes of its modules.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from fxprune.capture.objects import Returned
from fxprune.capture.outline import Outline, Path, numbered
from fxprune.capture.provenance import Attributed
from fxprune.capture.sizes import Dim, line, readable
from fxprune.coupling.replay import Place
from fxprune.coupling.view import View
from fxprune.ir.tape import TensorDim
from fxprune.rewrite.attribute_values import Equation, put_in
from fxprune.rewrite.pieces import cuts_pieces, piece_numbers
from fxprune.rewrite.site import LiteralError, Natural, numbers_for, rewritten


class ValueMissing(LiteralError):
    """A call would have to be given a value that Python does not give it."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """A call under a plan.

    Args:
        node: the call in the captured graph.
        position: of the same call in the run that shows where numbers come from.
        numbers: what it must be given, by their place in its arguments.
    """

    node: Node
    position: int
    numbers: dict[Path, Any]

    def __str__(self) -> str:
        """The call, and its line in the user's source."""
        target = self.node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        place = line(self.node.meta.get("source", ""))
        return f"{name} ({place})" if place else name


@dataclass(eq=False)
class Calls:
    """The calls of one captured graph under a plan.

    Args:
        view: the graph under the plan.
        least: the same graph where all that may go is gone.
        origin: the run that shows where its numbers come from.
        tape: the number of its tape.
        wanted: of the calls that can be rewritten.
        tables: what index buffers must hold.
        refused: the calls that cannot be rewritten.
        valued: those of them that would have to be given a value besides, as attention its scale.
    """

    view: View
    least: View
    origin: Attributed
    tape: int
    wanted: list[Wanted] = field(default_factory=list)
    tables: dict[str, torch.Tensor] = field(default_factory=dict)
    refused: dict[Place, str] = field(default_factory=dict)
    valued: set[Place] = field(default_factory=set)

    def equations(self) -> Iterator[Equation]:
        for call in self.wanted:
            for path, number in call.numbers.items():
                expression = self.expression(call, path)
                if expression is not None:
                    yield Equation(put_in(expression, self.length), number)

    def facts(self) -> Iterator[Equation]:
        """What the model's Python asked of attributes, and was answered."""
        for fact, answer in self.origin.outline.conditions.items():
            equation = Equation(put_in(fact, self.length), answer)
            if equation.attributes:
                yield equation

    def expression(self, call: Wanted, path: Path) -> Any:
        """Of attributes and sizes what the number is computed from; None where it is a mere number."""
        return self.origin.outline.expressions.get((call.position, path))

    def length(self, leaf: Any) -> Any:
        """The length of a dimension under the plan, anything else as it is."""
        if not isinstance(leaf, Dim):
            return leaf
        place = self.dim(leaf)
        if place.tensor not in self.view.dims:
            return self.origin.outline.lengths[leaf]
        return self.view.evaluate(Dim(place.tensor, place.dim), natural=True)

    def dim(self, leaf: Dim) -> TensorDim:
        """The dimension that a size reads, by the tape's numbers."""
        return TensorDim(self.tape, self.origin.outline.lengths.tensors[leaf.tensor], leaf.dim)

    def shrinks(self, place: TensorDim) -> bool:
        return place.tensor in self.view.dims and self.left(place) < self.size(place)

    def may_shrink(self, place: TensorDim) -> bool:
        """Whether some plan shrinks the dimension, be it this one or not."""
        return place.tensor in self.view.dims and self.least.shrinks(Dim(place.tensor, place.dim))

    def size(self, place: TensorDim) -> int:
        return len(self.view.dims[place.tensor][place.dim])

    def left(self, place: TensorDim) -> int:
        return int(self.view.kept_of(self.view.dims[place.tensor][place.dim]).sum())

    def dims(self, *nodes: Node) -> list[TensorDim]:
        """The dimensions of the nodes' tensors that may shrink, last ones first."""
        places = [TensorDim(self.tape, ref.id, dim) for node in nodes for ref in self.view.refs(node.name).values()
                  for dim in reversed(range(len(ref.shape)))]
        return [place for place in places if self.may_shrink(place)]

    def shrinking(self, *nodes: Node) -> list[TensorDim]:
        """Those of them that this plan shrinks."""
        return [place for place in self.dims(*nodes) if self.shrinks(place)]

    def _table(self, value: torch.Tensor, source: Node | None) -> Any:
        """A buffer's own place is the only one for another index table."""
        if source is None or source.op != "get_attr" or str(source.target) in self.view.traced.constants:
            raise LiteralError("", "the index table that the model's Python makes would have to be another one")
        known = self.tables.setdefault(str(source.target), value)
        if not torch.equal(known, value):
            raise LiteralError("", f"the index table {source.target!r} would have to serve two calls")
        return source


def calls_under(view: View, least: View, origin: Attributed, tape: int) -> Calls:
    """The calls of a captured graph under a plan, and what each must be given."""
    calls = Calls(view, least, origin, tape)
    for node, position in zip(Outline.of(view.traced).nodes, origin.positions, strict=True):
        call = Wanted(node, position, {})
        try:
            call.numbers.update(_numbers(view, node, calls._table))
        except LiteralError as error:
            calls.refused[node.name] = f"{call}: {error.why}"
            if isinstance(error, ValueMissing):
                calls.valued.add(node.name)
        else:
            # An object that is returned is compared as such.
            if position >= 0 and not isinstance(view.traced.added.get(str(node.target)), Returned):
                calls.wanted.append(call)
    return calls


def _numbers(view: View, node: Node, table: Callable[[torch.Tensor, Node | None], Any]) -> dict[Path, Any]:
    if cuts_pieces(node):
        return piece_numbers(view, node)
    _, args, kwargs = rewritten(node, view, table)
    for size in numbers_for(node, view, args, kwargs):
        raise LiteralError(node.name, f"the model's Python tells channels apart by {readable(size)}, which its inputs "
                           "decide")
    before, after = (dict(numbered(tree, Natural)) for tree in ((node.args, node.kwargs), (args, kwargs)))
    if before.keys() != after.keys():
        added = [path for path in after if path not in before and isinstance(after[path], float)]
        if added:
            raise ValueMissing(node.name, f"it would have to be given {added[0][-1]}={after[added[0]]!r}, which the "
                               "model's Python does not")
        raise LiteralError(node.name, "it would have to be given other sizes than the model's Python gives it")
    return {path: _value(view, leaf) for path, leaf in after.items()}


def _value(view: View, leaf: Any) -> Any:
    if isinstance(leaf, Natural):
        return view.evaluate(leaf.node.meta["size"], natural=True) * leaf.times // leaf.over
    return view.evaluate(leaf.meta["size"], natural=False) if isinstance(leaf, Node) else leaf
