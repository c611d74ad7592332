"""Outputs as files can hold them that know nothing of the model's classes.

A dataclass that a model returns (as all of Hugging Face's do) is of a class that is not there where ``model.py`` or
``model.pt2`` is loaded. In both it is a dictionary of the same fields: ``out["logits"]`` reads either. The program has
plain tuples for named ones besides, while the source defines them.
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch.fx import Graph, Node
from torch.fx.node import map_arg


def plain(value: Any) -> Any:
    """What a model returned, with dictionaries for dataclasses and tuples for named tuples.

    >>> from collections import namedtuple
    >>> Pair = namedtuple("Pair", "a b")
    >>> Out = dataclasses.make_dataclass("Out", ["logits", "rest"])
    >>> plain([Out(1, Pair(2, Out(3, None)))])
    [{'logits': 1, 'rest': (2, {'logits': 3, 'rest': None})}]
    """
    # Some dataclasses are mappings of those of their fields that are there.
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return list(map(plain, value)) if isinstance(value, list) else value


def record_names(graph: Graph) -> list[str]:
    """The classes of the dataclasses that a graph makes."""
    return list(dict.fromkeys(node.target.__name__ for node in graph.nodes if _is_record(node)))


def without_records(graph: Graph) -> Graph:
    """The same graph with dictionaries for dataclasses, in a copy where it has any."""
    if not any(map(_is_record, graph.nodes)):
        return graph
    copied = copy.deepcopy(graph)
    drop_records(copied)
    return copied


def drop_records(graph: Graph) -> None:
    """Write dictionaries for the dataclasses of the graph's output, in place."""
    for node in list(graph.nodes):
        if not _is_record(node):
            continue
        # Any other user wants the class itself, which cannot be had.
        for user in [user for user in node.users if user.op == "output" or _is_record(user)]:
            _replace(user, node, dict(node.kwargs))
        if not node.users:
            graph.erase_node(node)


def _replace(user: Node, record: Node, fields: dict[str, Any]) -> None:
    def change(node: Node) -> Any:
        return fields if node is record else node

    user.args, user.kwargs = map_arg((user.args, user.kwargs), change)


def drop_named_tuples(graph: Graph) -> None:
    """Write plain tuples for the named ones of the graph's output, in place."""
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    output.args = (plain(output.args[0]),)


def _is_record(node: Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, type) and dataclasses.is_dataclass(node.target)
