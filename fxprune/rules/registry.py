"""The table of rules: one record holds all that the compiler knows of an operator.

A rule's ``couple`` is called as ``couple(op, *args, **kwargs)`` with the operator's own arguments, tensors replaced by
`Operand`. It ties units through ``op`` and returns the dim vectors of the output (a tuple of vectors), or a list of
such tuples where the operator returns several tensors.

>>> @register_rule("demo::swish_gate")
... def swish_gate(op, x, gate):
...     return op.pointwise(x, gate)
>>> rule_for("demo::swish_gate").couple.__name__
'swish_gate'
>>> del RULES["demo::swish_gate"]
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fxprune.errors import InputError
from fxprune.ir.units import Vector


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor argument as a rule sees it.

    Args:
        vectors: its dim vectors.
        value: its contents, where they are known integers.
        is_param: whether it is a parameter or buffer itself.
        is_weight: whether it is one, or made from such alone.
    """

    vectors: tuple[Vector, ...]
    value: np.ndarray | None = None
    is_param: bool = False
    is_weight: bool = False

    def __getitem__(self, dim: int) -> Vector:
        return self.vectors[dim]

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(vector) for vector in self.vectors)


Couple = Callable[..., Any]
Literals = Callable[..., Any]


@dataclass(frozen=True)
class Rule:
    """All that the compiler knows of one operator.

    Args:
        couple: ties the operands' units and builds the outputs' dim vectors.
        mixes: whether an output depends on which channels are there at all (statistics, contractions of two
            activations); verification then computes the operator over the kept channels only. May be a predicate
            ``mixes(*operands)``.
        shrink: rewrites the operator's own sizes for that computation: ``shrink(kept, args, kwargs)``, where
            ``kept(i, dim)`` is the mask of kept indices of the i-th tensor argument.
    """

    couple: Couple
    mixes: bool | Callable[..., bool] = False
    shrink: Callable[..., Any] | None = None


RULES: dict[str, Rule] = {}
LITERALS: dict[str, Literals] = {}


def register_rule(*ops: str, mixes: bool | Callable[..., bool] = False,
                  shrink: Callable[..., Any] | None = None) -> Callable[[Couple], Couple]:
    """Register a coupling rule for one or more operators, by qualified name (``"aten::relu"``, ``"mylib::gate"``).

    Raises:
        InputError: an operator has a rule already, or its name is not qualified.
    """

    def register(couple: Couple) -> Couple:
        for op in ops:
            if "::" not in op:
                raise InputError(f"a rule needs a qualified operator name, got {op!r}; write 'namespace::{op}'")
            if op in RULES:
                raise InputError(f"operator {op!r} already has the rule {RULES[op].couple.__name__!r}; "
                                 f"remove it first: del fxprune.rules.registry.RULES[{op!r}]")
            RULES[op] = Rule(couple, mixes, shrink)
        return couple

    return register


def register_literals(*targets: str) -> Callable[[Literals], Literals]:
    """Register how a call in the graph is rewritten where a size that it holds has shrunk, by the name of the function
    or method (``"view"`` serves ``x.view``; ``"chunk"`` serves ``torch.chunk`` and ``x.chunk``)."""

    def register(literals: Literals) -> Literals:
        for target in targets:
            if target in LITERALS:
                raise InputError(f"{target!r} already has literals {LITERALS[target].__name__!r}")
            LITERALS[target] = literals
        return literals

    return register


def rule_for(op: str) -> Rule | None:
    """The rule of an operator; in-place and ``out`` variants share the record of their base."""
    if op in RULES:
        return RULES[op]
    namespace, _, name = op.partition("::")
    base = name.rstrip("_")
    return RULES.get(f"{namespace}::{base}") if base != name and not name.startswith("__") else None
