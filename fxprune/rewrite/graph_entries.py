"""A graph as plain values, which pickle.

``torch.fx`` pickles the code of a graph, and traces it anew when that is loaded: what no proxy meets
(``torch.arange(4)``, a random draw) is run then and stays as a constant, and what a proxy cannot do (``x[0] = y``,
``torch.zeros(n, 2)`` of a length) fails. A list of nodes stays what it is.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import Any

from torch.fx import Graph, Node
from torch.fx.node import map_aggregate

from fxprune.rules.targets import OPERATORS

# What later passes, and the code that is written, ask of a node.
_META = ("source", "is_wrapped")


@dataclass(frozen=True)
class Earlier:
    """In place of a node: the how manieth entry it is."""

    number: int


@dataclass(frozen=True)
class Global:
    """In place of an operator, or of a function that goes by another name than it was written with
    (``torch.nn.functional.max_pool2d``): neither pickles."""

    module: str
    name: str

    @classmethod
    def of(cls, value: Any) -> Any:
        """The value itself where it pickles."""
        if isinstance(value, OPERATORS):
            return cls("torch", f"ops.{value}")
        inner = "<locals>" in getattr(value, "__qualname__", "")
        known = inner and getattr(sys.modules.get(value.__module__), value.__name__, None) is value
        return cls(value.__module__, value.__name__) if known else value

    @property
    def value(self) -> Any:
        return reduce(getattr, self.name.split("."), import_module(self.module))


@dataclass(frozen=True)
class Entry:
    """A node; what stands for nodes and operators is in its target and arguments."""

    op: str
    name: str
    target: Any
    args: Any
    kwargs: Any
    type: Any
    meta: dict[str, Any]


def entries_of(graph: Graph) -> tuple[Entry, ...]:
    """The nodes of a graph, in their order.

    >>> import torch
    >>> graph = Graph()
    >>> x = graph.placeholder("x")
    >>> out = graph.output(graph.call_function(torch.ops.aten.relu.default, (x,)))
    >>> for entry in entries_of(graph):
    ...     print(entry.op, entry.target, entry.args)
    placeholder x ()
    call_function Global(module='torch', name='ops.aten.relu.default') (Earlier(number=0),)
    output output (Earlier(number=1),)
    """
    earlier = {node: Earlier(number) for number, node in enumerate(graph.nodes)}

    def plain(value: Any) -> Any:
        return earlier[value] if isinstance(value, Node) else Global.of(value)

    return tuple(Entry(node.op, node.name, *map_aggregate((node.target, node.args, node.kwargs), plain), node.type,
                       {key: node.meta[key] for key in _META if key in node.meta}) for node in graph.nodes)


def graph_of(entries: Sequence[Entry]) -> Graph:
    """The graph whose nodes these are.

    Raises:
        AttributeError: an operator that no library has registered here.
    """
    graph, nodes = Graph(), list[Node]()

    def found(value: Any) -> Any:
        if isinstance(value, Earlier):
            return nodes[value.number]
        return value.value if isinstance(value, Global) else value

    for entry in entries:
        target, args, kwargs = map_aggregate((entry.target, entry.args, entry.kwargs), found)
        nodes.append(graph.create_node(entry.op, target, args, kwargs, entry.name, entry.type))
        nodes[-1].meta.update(entry.meta)
    return graph

