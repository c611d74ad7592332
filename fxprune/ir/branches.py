"""Residual branches: f in t + f(t), which may go whole."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dropped:
    """What goes with a branch in one graph.

    Args:
        sum: the node that adds the branch to its shortcut.
        operand: which operand of that sum the branch is, 0 or 1.
        nodes: the nodes that nothing else needs.
    """

    sum: str
    operand: int
    nodes: frozenset[str]


@dataclass(frozen=True)
class Branch:
    """A branch that is added to what it reads: t + f(t), of which t stays.

    Args:
        name: the module that holds its layers, and no others; else its first layer.
        tensors: the parameters and buffers that go with it, under all of their names.
        ends: those of them that are applied to what it puts out: its last layer's, and what scales that.
        stream: the groups whose channels it puts out.
        dropped: what goes, in each of the distinct graphs, that of evaluation first.
    """

    name: str
    tensors: tuple[str, ...]
    ends: tuple[str, ...]
    stream: tuple[str, ...]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True)
class Skipped:
    """What a graph does without.

    Args:
        sums: nodes that hand their shortcut on -> the operand that they do not add.
        nodes: those that are left out.
    """

    sums: Mapping[str, int] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, branches: Iterable[Branch], graph: int) -> "Skipped":
        """Without these branches, the graph of that number."""
        dropped = [branch.dropped[graph] for branch in branches]
        return cls({one.sum: one.operand for one in dropped}, frozenset().union(*(one.nodes for one in dropped)))
