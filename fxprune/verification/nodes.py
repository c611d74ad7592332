"""Run the pruned GraphModule and show the value of every node."""

from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule, Interpreter, Node

from fxprune.ir.example_inputs import Example


class _Watched(Interpreter):
    def __init__(self, module: GraphModule, seen: Callable[[str, Any], None]):
        super().__init__(module)
        self.seen = seen

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        self.seen(n.name, value)
        return value


def run_nodes(small: GraphModule, example: Example, names: list[str], seen: Callable[[str, Any], None]) -> Any:
    """The output; ``seen(name, value)`` is called as soon as a node has run."""
    return _Watched(small, seen).run(*placed(small, example, names))


def placed(small: GraphModule, example: Example, names: list[str]) -> list[Any]:
    """The example's arguments in the order of the graph's placeholders.

    Args:
        names: the placeholders that the positional and keyword arguments go to, in order.
    """
    given = dict(zip(names, [*example[0], *example[1].values()], strict=True))
    return [given.get(node.target) for node in small.graph.nodes if node.op == "placeholder"]
