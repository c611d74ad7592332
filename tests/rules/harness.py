"""A bench for single rules: operands in, dim vectors and frozen channels out, without torch or a model."""

from dataclasses import dataclass, field

import numpy as np

import fxprune.rules  # noqa: F401  fills the registry
from fxprune.ir.policy import Policy
from fxprune.ir.units import Closure, Vector
from fxprune.rules.op import Notes, Op
from fxprune.rules.registry import Operand, rule_for


@dataclass
class Bench:
    """Runs rules one after the other on shared notes.

    Args:
        policy: the choices for splits.
        choices: alternatives to take, by (index of the call, index of the question).
    """

    policy: Policy = field(default_factory=Policy)
    choices: dict[tuple[int, int], int] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    calls: int = 0

    def free(self, *shape: int) -> Operand:
        """An activation with units in every dimension."""
        return Operand(tuple(self.notes.ties.fresh(n) for n in shape))

    def param(self, *shape: int) -> Operand:
        """A parameter."""
        return Operand(self.free(*shape).vectors, is_param=True)

    def fixed(self, *shape: int) -> Operand:
        """An input: positions only."""
        return Operand(tuple(self.notes.ties.fixed(n) for n in shape))

    def channels(self, shape: tuple[int, ...], dim: int) -> Operand:
        """An activation with units in one dimension."""
        dim %= len(shape)
        return Operand(tuple(self.notes.ties.fresh(n) if d == dim else self.notes.ties.fixed(n)
                             for d, n in enumerate(shape)))

    def index(self, contents: list) -> Operand:
        """A constant index of known contents."""
        value = np.array(contents)
        return Operand(self.fixed(*value.shape).vectors, value, is_mask=value.dtype == bool)

    def mask(self, *shape: int) -> Operand:
        """A mask of unknown contents."""
        return Operand(self.fixed(*shape).vectors, is_mask=True)

    def run(self, name: str, shapes: object, *args: object, overload: str = "default", unread: tuple[int, ...] = (),
            **kwargs: object) -> object:
        """Apply the rule of ``aten::name``; ``shapes`` are the outputs' (one tuple, or a list of them), of which those
        ``unread`` are of no use to anybody. Gives the output as an `Operand`, or a list of them; their shapes are
        checked."""
        shapes = shapes if isinstance(shapes, list) else [shapes]
        name = name if "::" in name else f"aten::{name}"
        op = Op(self.calls, name, overload, shapes, (name, ""), self.policy, self.choices, self.notes,
                frozenset(unread))
        self.calls += 1
        result = rule_for(name).couple(op, *args, **kwargs)
        results = result if isinstance(result, list) else [result]
        assert [tuple(map(len, vectors)) for vectors in results] == shapes
        outs = [Operand(vectors) for vectors in results]
        return outs if isinstance(result, list) else outs[0]

    @property
    def closure(self) -> Closure:
        return self.notes.ties.close()

    def of(self, vector: Vector) -> list[int]:
        """The channel at each index, numbered by first appearance, -1 where it may not go."""
        channels = self.closure.of(vector).tolist()
        seen: dict[int, int] = {-1: -1}
        for channel in channels:
            seen.setdefault(channel, len(seen) - 1)
        return [seen[channel] for channel in channels]

    def tied(self, a: Vector, b: Vector) -> bool:
        """Whether two vectors hold the same channels, index by index, all of them free."""
        first, second = self.closure.of(a), self.closure.of(b)
        return len(a) == len(b) and bool((first == second).all() and (first >= 0).all())

    def frozen(self, vector: Vector) -> bool:
        """Whether no index may go."""
        return bool((self.closure.of(vector) < 0).all())

    def why(self, vector: Vector) -> str:
        """The reason at the vector's first index."""
        entry, closure = int(vector[0]), self.closure
        reason = -1 - entry if entry < 0 else closure.frozen[closure.channel[entry]]
        return closure.reasons[reason].why if reason >= 0 else ""

    def macs(self) -> int:
        """What the contractions cost in all."""
        return sum(c.positions * int(np.prod([len(f) for f in c.factors])) for _, c in self.notes.contractions)

    def produced(self) -> list[Vector]:
        return [v for _, v in self.notes.produced]

    def consumed(self) -> list[Vector]:
        return [v for _, v in self.notes.consumed]


def kept(closure: Closure, vector: Vector, gone: set[int]) -> np.ndarray:
    """The indices of a dim vector that stay when these channels go."""
    return np.flatnonzero(~np.isin(closure.of(vector), sorted(gone)))
