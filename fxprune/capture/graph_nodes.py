"""Nodes of ``torch.fx`` graphs, made without a walk through their arguments."""

from typing import Any

from torch.fx import Graph, Node


def create_node(graph: Graph, op: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
                name: str | None = None) -> Node:
    """``graph.create_node``. Given arguments, that looks through all of them for symbolic numbers, of which we write
    none: as long as the rest together. So they are put in afterwards.

    >>> graph = Graph()
    >>> x = graph.placeholder("x")
    >>> create_node(graph, "call_method", "add", (x, 1), {"alpha": 2}).format_node()
    '%add : [num_users=0] = call_method[target=add](args = (%x, 1), kwargs = {alpha: 2})'
    """
    node = graph.create_node(op, target, name=name)
    if args:
        node.args = args
    if kwargs:
        node.kwargs = kwargs
    return node
