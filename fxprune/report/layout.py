"""A small layered layout: ranks by longest path, columns that keep chains straight.

Networks are long and narrow: what matters is that a chain of layers stands in one column, that branches stand beside
it, and that skips are seen as arcs. Nothing is optimised; the work is linear in nodes and edges.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import count

Node = Hashable


def places(nodes: Sequence[Node], edges: Sequence[tuple[Node, Node]]) -> dict[Node, tuple[int, int]]:
    """Column and rank of every node.

    Args:
        nodes: in topological order.
        edges: from earlier to later nodes.

    >>> places("abcd", [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    {'a': (0, 0), 'b': (0, 1), 'c': (1, 1), 'd': (0, 2)}
    """
    before: dict[Node, list[Node]] = {node: [] for node in nodes}
    after: dict[Node, list[Node]] = {node: [] for node in nodes}
    for u, v in edges:
        before[v].append(u)
        after[u].append(v)
    rank: dict[Node, int] = {}
    for node in nodes:
        rank[node] = max((rank[u] + 1 for u in before[node]), default=0)
    starts = [node for node in nodes if not before[node]]
    # What comes from nowhere (a table of parameters) stands right above what uses it, and beside the chain.
    rank |= {node: max(0, min((rank[v] for v in after[node]), default=1) - 1) for node in starts}
    column: dict[Node, int] = {}
    taken: dict[int, set[int]] = {}
    for node in [*(node for node in nodes if before[node]), *starts]:
        here = taken.setdefault(rank[node], set())
        column[node] = _free(here, [column[u] for u in before[node] if u in column])
        here.add(column[node])
    return {node: (column[node], rank[node]) for node in nodes}


def _free(taken: set[int], wanted: list[int]) -> int:
    """A predecessor's column, the innermost first; else the innermost that is free: 0, 1, -1, 2, …"""
    for column in sorted(wanted, key=abs):
        if column not in taken:
            return column
    return next(column for k in count() for column in (k, -k) if column not in taken)


def curve(start: Mapping[str, float], end: Mapping[str, float], clear: float) -> str:
    """The SVG path of an edge between two boxes (``x``, ``y`` of the centre, ``w``, ``h``, ``column``, ``rank``).

    A skip within one column would run through what it skips: it becomes an arc on the right, ``clear`` pixels from the
    column's middle. Between columns, an edge runs straight in the outer one.

    >>> box = {"x": 0, "y": 0, "w": 20, "h": 10, "column": 0, "rank": 0}
    >>> curve(box, {**box, "y": 40, "rank": 1}, 30)
    'M0 5C0 20 0 20 0 35'
    """
    span = end["rank"] - start["rank"]
    if span > 1 and start["x"] == end["x"]:
        return _arc(start, end, start["x"] + clear + 7 * math.log2(span))
    y1, y2 = start["y"] + start["h"] / 2, end["y"] - end["h"] / 2
    gap = (end["y"] - start["y"]) / span - (start["h"] + end["h"]) / 2
    outer = abs(start["column"]) >= abs(end["column"])
    bend, rest = (y2 - gap, "") if outer else (y1, f"V{y2:g}")
    middle = bend + gap / 2
    straight = f"V{bend:g}" if bend > y1 else ""
    return (f"M{start['x']:g} {y1:g}{straight}C{start['x']:g} {middle:g} {end['x']:g} {middle:g} "
            f"{end['x']:g} {bend + gap:g}{rest if span > 1 else ''}")


def _arc(start: Mapping[str, float], end: Mapping[str, float], peak: float) -> str:
    x1, x2 = start["x"] + start["w"] / 2, end["x"] + end["w"] / 2
    # A cubic with both handles at h reaches three quarters of the way to h.
    handle = max(x1, x2) + (peak - max(x1, x2)) / 0.75
    return f"M{x1:g} {start['y']:g}C{handle:g} {start['y']:g} {handle:g} {end['y']:g} {x2:g} {end['y']:g}"
