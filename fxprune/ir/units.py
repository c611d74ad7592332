"""Units, ties and dim vectors: the algebra of the coupling analysis.

A *dim vector* describes one dimension of one tensor: an int64 array with an entry per index. An entry ``>= 0`` is a
*unit*; a negative entry says that this index is *fixed*, and ``Ties.reasons[-entry - 1]`` says why. Ties between units
are collected as arrays and closed once, by connected components; a unit tied with a fixed index is frozen with the
reason of that index. Nothing here knows of torch, and nothing loops over channels in Python.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Vector = np.ndarray

POSITION = "position"


@dataclass(frozen=True)
class Reason:
    """Why an index is fixed: what holds it, the graph node and the user's source line where that happens."""

    why: str
    node: str = ""
    source: str = ""

    def __str__(self) -> str:
        place = " at ".join(part for part in (self.node, self.source) if part)
        return f"{self.why} ({place})" if place else self.why


@dataclass(frozen=True, eq=False)
class Closure:
    """The ties, closed: ``channel[u]`` is the channel of unit ``u``, ``frozen[c]`` the index of the reason why channel
    ``c`` may not go, or -1."""

    channel: np.ndarray
    frozen: np.ndarray
    reasons: tuple[Reason, ...]

    def of(self, vector: Vector) -> np.ndarray:
        """The channel at each index of a dim vector, -1 where the index is fixed or its channel frozen."""
        free = vector >= 0
        channels = np.where(free, self.channel[np.where(free, vector, 0)] if len(self.channel) else -1, -1)
        return np.where((channels >= 0) & (self.frozen[channels] < 0), channels, -1) if len(self.frozen) else channels


@dataclass
class Ties:
    """Collects units and ties.

    >>> ties = Ties()
    >>> a, b = ties.fresh(3), ties.fresh(3)
    >>> ties.tie(a, b[::-1])
    >>> ties.freeze(b[:1], Reason("model output"))
    >>> closure = ties.close()
    >>> closure.of(a).tolist(), closure.of(b).tolist()
    ([0, 1, -1], [-1, 1, 0])
    """

    count: int = 0
    reasons: list[Reason] = field(default_factory=lambda: [Reason(POSITION)])
    _index: dict[Reason, int] = field(default_factory=lambda: {Reason(POSITION): 0})
    _pairs: list[tuple[Vector, Vector]] = field(default_factory=list)
    _frozen: list[tuple[Vector, Vector]] = field(default_factory=list)
    _fixed: dict[tuple[int, int], Vector] = field(default_factory=dict)
    _runs: dict[int, Vector] = field(default_factory=dict)
    _whole: list[tuple[Vector, Vector]] = field(default_factory=list)

    def fresh(self, n: int) -> Vector:
        """A vector of ``n`` new units."""
        start, self.count = self.count, self.count + n
        vector = np.arange(start, self.count)
        self._runs[id(vector)] = vector
        return vector

    def fixed(self, n: int, reason: Reason = Reason(POSITION)) -> Vector:
        """A vector of ``n`` fixed indices (a zero-stride array, since positions are many and all alike)."""
        key = (n, self._reason(reason))
        if key not in self._fixed:
            self._fixed[key] = np.broadcast_to(np.int64(-1 - key[1]), (n,))
        return self._fixed[key]

    def freeze(self, vector: Vector, reason: Reason) -> None:
        """The channels of these units may not go."""
        units = vector[vector >= 0]
        if len(units):
            self._frozen.append((units, np.full(len(units), self._reason(reason))))

    def tie(self, a: Vector, b: Vector) -> None:
        """Index by index, ``a`` and ``b`` are kept or removed together; vectors of one length."""
        if len(a) != len(b):
            raise ValueError(f"ties need vectors of one length, got {len(a)} and {len(b)}")
        if a is b or not len(a):
            return
        if id(a) in self._runs and id(b) in self._runs:
            self._whole.append((a, b))
            return
        fixed_a, fixed_b = a < 0, b < 0
        held_a, held_b = np.count_nonzero(fixed_a), np.count_nonzero(fixed_b)
        if held_a == held_b == 0:
            self._pairs.append((a, b))
        if held_a == held_b == 0 or held_a == held_b == len(a):
            return
        free = ~(fixed_a | fixed_b)
        self._pairs.append((a[free], b[free]))
        for held, by in ((fixed_b & ~fixed_a, (a, b)), (fixed_a & ~fixed_b, (b, a))):
            if held.any():
                self._frozen.append((by[0][held], -1 - by[1][held]))

    def close(self) -> Closure:
        """Close all ties (``scipy.sparse.csgraph``): linear in units and ties.

        Most ties join whole fresh vectors, index by index. Those are closed first, as one node each, so that the graph
        over units holds only what is left.
        """
        if not self.count:
            return Closure(np.zeros(0, np.int64), np.zeros(0, np.int64), tuple(self.reasons))
        unit = self._joined()
        own = unit == np.arange(self.count)
        number = np.cumsum(own) - 1
        rows, cols = (number[unit[np.concatenate([np.zeros(0, np.int64), *(pair[side] for pair in self._pairs)])]]
                      for side in (0, 1))
        components, label = _components(rows, cols, int(number[-1]) + 1)
        channel = label[number[unit]]
        frozen = np.full(components, -1, np.int64)
        # Written in reverse, so that the first reason that was met is the one that stays.
        for units, reasons in reversed(self._frozen):
            frozen[channel[units[::-1]]] = reasons[::-1]
        return Closure(channel, frozen, tuple(self.reasons))

    def _joined(self) -> np.ndarray:
        """For every unit the first of those that whole vectors tie it with."""
        unit, pairs = np.arange(self.count), len(self._whole)
        ends = np.array([pair[side][0] for side in (0, 1) for pair in self._whole], np.int64)
        starts, first, place = np.unique(ends, return_index=True, return_inverse=True)
        lengths = [len(self._whole[index % pairs][0]) for index in first.tolist()]
        label = _components(place[:pairs], place[pairs:], len(starts))[1]
        leaders = starts[np.unique(label, return_index=True)[1]][label]
        for start, shift, length in zip(starts.tolist(), (leaders - starts).tolist(), lengths, strict=True):
            if shift:
                unit[start:start + length] += shift
        return unit

    def _reason(self, reason: Reason) -> int:
        if reason not in self._index:
            self._index[reason] = len(self.reasons)
            self.reasons.append(reason)
        return self._index[reason]


def _components(rows: np.ndarray, cols: np.ndarray, count: int) -> tuple[int, np.ndarray]:
    """How many connected components there are, and that of every node."""
    if not count:
        return 0, np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, cols)), (count, count))
    components, label = connected_components(graph, directed=False)
    return components, label.astype(np.int64)
