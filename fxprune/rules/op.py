"""What a rule is given to speak with: it ties, freezes, and says what is produced, read and paid for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fxprune.ir.policy import Policy
from fxprune.ir.units import Reason, Ties, Vector
from fxprune.rules.registry import Operand


@dataclass(frozen=True)
class Contraction:
    """Multiply-accumulates of one call: ``positions`` times the product of the factors' lengths."""

    positions: int
    factors: tuple[Vector, ...]


@dataclass
class Notes:
    """What the rules said, over the whole tape."""

    ties: Ties = field(default_factory=Ties)
    contractions: list[tuple[int, Contraction]] = field(default_factory=list)
    produced: list[tuple[int, Vector]] = field(default_factory=list)
    consumed: list[tuple[int, Vector]] = field(default_factory=list)
    joined: list[tuple[int, Vector, Vector]] = field(default_factory=list)
    fresh: list[tuple[int, Vector]] = field(default_factory=list)
    hinges: list[tuple[tuple[int, int], Vector]] = field(default_factory=list)
    options: dict[tuple[int, int], int] = field(default_factory=dict)
    excluding: set[tuple[int, int]] = field(default_factory=set)


class Op:
    """One operator call, as its rule sees it.

    Attributes:
        name: the qualified operator name.
        overload: the overload's name (``"default"``, ``"Tensor"``, …).
        shapes: shapes of the outputs, in order.
        policy: the user's choices for splits.
        unread: the outputs, by their place, that nothing reads.
    """

    def __init__(self, index: int, name: str, overload: str, shapes: Sequence[tuple[int, ...]], place: tuple[str, str],
                 policy: Policy, choices: dict[tuple[int, int], int], notes: Notes,
                 unread: frozenset[int] = frozenset()):
        self.name, self.overload, self.shapes, self.policy = name, overload, tuple(shapes), policy
        self.unread = unread
        self._index, self._place, self._choices, self._notes = index, place, choices, notes
        self._asked = 0

    def tie(self, a: Vector, b: Vector) -> None:
        """Index by index, ``a`` and ``b`` go or stay together. Vectors of one length."""
        self._notes.ties.tie(a, b)
        self._notes.joined.append((self._index, a, b))

    def freeze(self, vector: Vector, why: str) -> None:
        """These indices may not go. ``why`` completes "frozen: …" in the report."""
        self._notes.ties.freeze(vector, self._reason(why))

    def fixed(self, n: int, why: str = "") -> Vector:
        """A dim vector of ``n`` indices that cannot change (positions, where no reason is given)."""
        return self._notes.ties.fixed(n, self._reason(why)) if why else self._notes.ties.fixed(n)

    def fresh(self, n: int) -> Vector:
        """A dim vector of ``n`` new units, all alike (a constant's dimension, padding)."""
        vector = self._notes.ties.fresh(n)
        self._notes.fresh.append((self._index, vector))
        return vector

    def contract(self, positions: int, *factors: Vector) -> None:
        """The call costs ``positions`` · Π len(factor) multiply-accumulates."""
        self._notes.contractions.append((self._index, Contraction(int(positions), factors)))

    def produces(self, vector: Vector) -> None:
        """These units of a weight create the channels that leave the call: the weight votes on them."""
        self._notes.produced.append((self._index, vector))

    def consumes(self, vector: Vector) -> None:
        """These units of a weight read channels that enter the call."""
        self._notes.consumed.append((self._index, vector))

    def choose(self, count: int) -> int:
        """Which of ``count`` alternatives to take here, 0 first. Follow it with `hinge`."""
        key = (self._index, self._asked)
        self._asked += 1
        self._notes.options[key] = count
        return min(self._choices.get(key, 0), count - 1)

    def hinge(self, vector: Vector, excluding: bool = False) -> None:
        """The latest choice lets this vector carry channels; should all of it end up frozen, the next is tried.

        Args:
            excluding: whether it froze what others had let carry channels; where nothing produces the vector, it is
                tried anew before they are.
        """
        key = self._index, self._asked - 1
        self._notes.hinges.append((key, vector))
        if excluding:
            self._notes.excluding.add(key)

    def pointwise(self, *operands: Operand) -> tuple[Vector, ...]:
        """Broadcast and tie: the rule of every elementwise operator.

        Dimensions are aligned from the right; a dimension of length 1 that is broadcast is not tied.
        """
        tensors = [o for o in operands if isinstance(o, Operand)]
        rank = max((len(o) for o in tensors), default=0)
        return tuple(self._aligned([o[d - rank + len(o)] for o in tensors if d - rank + len(o) >= 0])
                     for d in range(rank))

    def unknown(self, *operands: Operand, why: str) -> list[tuple[Vector, ...]]:
        """Freeze whatever reaches the call, and give outputs that cannot change."""
        for operand in operands:
            for vector in operand.vectors:
                self.freeze(vector, why)
        return [tuple(self.fixed(n, why) for n in shape) for shape in self.shapes]

    def _aligned(self, vectors: list[Vector]) -> Vector:
        n = max((len(v) for v in vectors if len(v) != 1), default=1)
        full = [v for v in vectors if len(v) == n]
        # A fixed vector says nothing about its units, so that the output takes the units where there are any.
        first = next((v for v in full if not np.count_nonzero(v < 0)), full[0])
        for other in full:
            if other is not first:
                self.tie(first, other)
        return first

    def _reason(self, why: str) -> Reason:
        return Reason(why, *self._place)
