"""Assert, at the beginning of a result, the lengths of dimensions that its inputs have no other of."""

import operator
import re
from collections.abc import Iterable
from typing import Any

from torch.fx import Graph, GraphModule, Node

from fxprune.capture.constant_arguments import as_captured
from fxprune.capture.torch_functions import ASSERT
from fxprune.rewrite.emitted import graphs_of

_PLACE = re.compile(r"\[(\d+|'[^']*')\]")


def said(argument: str, dim: int, length: int, why: str) -> str:
    """What such an assertion says."""
    return f"fxprune: captured with {argument} of size {length} in dimension {dim}, which is fixed: {why}; capture " \
           "again for inputs of this size"


def hold(small: GraphModule, fixed: Iterable[tuple[str, int, int, str]]) -> None:
    """Let a result assert more; ``fixed`` are argument, dimension, length and the reason."""
    for graph in graphs_of(small):
        known = {node.args[1] for node in graph.nodes if node.target is ASSERT}
        for row in fixed:
            if said(*row) not in known:
                _assert(graph, *row)
    small.recompile()


def _assert(graph: Graph, argument: str, dim: int, length: int, why: str) -> None:
    name = argument.partition("[")[0]
    value: Any = next(node for node in graph.nodes if node.op == "placeholder" and str(node.target).lstrip("*") == name)
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder"
                                     and node.target is not as_captured)):
        for key in _PLACE.findall(argument):
            value = _made(graph, "call_function", operator.getitem, value, int(key) if key.isdigit() else key[1:-1])
        size = _made(graph, "call_method", "size", value, dim)
        graph.call_function(ASSERT, (_made(graph, "call_function", operator.eq, size, length),
                                     said(argument, dim, length, why)))


def _made(graph: Graph, kind: str, target: Any, *args: Any) -> Node:
    return graph.create_node(kind, target, args, name="kept_size")
