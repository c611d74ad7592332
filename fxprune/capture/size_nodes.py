"""Put expressions of sizes into a finished graph, in the place of numbers."""

import operator
from typing import Any

from torch.fx import Node

from fxprune.capture.sizes import Apply, Dim
from fxprune.capture.traced import Traced


class SizeNodes:
    """Writes into the graph of one capture; calls must be given in the graph's order, since nodes are shared."""

    def __init__(self, traced: Traced):
        self.graph, self.tape = traced.graph, traced.tape
        self._origins = {ref.id: (node, path, ref) for node in reversed(self.graph.nodes)
                         for path, ref in self.tape.nodes.get(node.name, {}).items()}
        self._made: dict[Any, Any] = {}

    def write(self, node: Node, path: tuple[Any, ...], expression: Any) -> None:
        """Replace the number at ``path`` of ``(node.args, node.kwargs)``."""
        with self.graph.inserting_before(node):
            size = self._size(expression)
        node.args, node.kwargs = replaced_at((node.args, node.kwargs), path, size)

    def _size(self, expression: Any) -> Any:
        if not isinstance(expression, (Dim, Apply)):
            return expression
        if expression not in self._made:
            if isinstance(expression, Dim):
                made = self.graph.call_method("size", (self._tensor(expression.tensor), expression.dim))
            else:
                made = self.graph.call_function(expression.function, tuple(map(self._size, expression.args)))
            made.meta["size"] = expression
            self._made[expression] = made
        return self._made[expression]

    def _tensor(self, number: int) -> Node:
        node, path, ref = self._origins[number]
        for key in path:
            node = self.graph.call_function(operator.getitem, (node, key))
        self.tape.nodes.setdefault(node.name, {})[()] = ref
        return node


def replaced_at(tree: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The same nest of arguments with another item at that path."""
    if not path:
        return new
    if isinstance(tree, slice):
        parts = {name: getattr(tree, name) for name in ("start", "stop", "step")}
        return slice(*replaced_at(parts, path, new).values())
    if isinstance(tree, dict):
        return {key: replaced_at(item, path[1:], new) if key == path[0] else item for key, item in tree.items()}
    items = [replaced_at(item, path[1:], new) if k == path[0] else item for k, item in enumerate(tree)]
    return items if isinstance(tree, list) else type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
