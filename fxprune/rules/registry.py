"""The table of rules: one record holds all that the compiler knows of an operator.

A rule's ``couple`` is called as ``couple(op, *args, **kwargs)`` with the operator's own arguments, tensors replaced by
`Operand`. It ties units through ``op`` and returns the dim vectors of the output (a tuple of vectors), or a list of
such tuples where the operator returns several tensors.

Its ``literals`` are called as ``literals(site, target, args, kwargs)`` for a call in a graph, and return target and
arguments anew, every size written as what is left of it. ``site`` says which indices stay (`fxprune.rewrite.site`).
What literals do not touch keeps its number, even one computed from a size that shrank (``q.shape[-1] ** -0.5``).

>>> @register_rule("demo::swish_gate")
... def swish_gate(op, x, gate):
...     return op.pointwise(x, gate)
>>> rule_for("demo::swish_gate").couple.__name__
'swish_gate'
>>> del RULES["demo::swish_gate"]
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fxprune.errors import InputError
from fxprune.ir.units import Vector
from fxprune.rules.targets import qualified


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor argument as a rule sees it.

    Args:
        vectors: its dim vectors.
        value: its contents, where they are known integers.
        is_param: whether it is a parameter or buffer itself.
        is_weight: whether it is one, or made from such alone.
        repeated: the dims along which it is the same throughout, since it was expanded there.
        is_mask: whether it holds booleans, and so covers all of its dims where it is an index.
    """

    vectors: tuple[Vector, ...]
    value: np.ndarray | None = None
    is_param: bool = False
    is_weight: bool = False
    is_mask: bool = False
    repeated: frozenset[int] = frozenset()

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
        couple: ties the operands' units and builds the outputs' dim vectors; None for a function that calls several
            operators, each with a rule of its own.
        mixes: whether an output depends on which channels are there at all (statistics, contractions of two
            activations); verification then computes the operator over the kept channels only. May be a predicate
            ``mixes(*operands)``.
        shrink: rewrites the operator's own sizes for that computation: ``shrink(kept, args, kwargs)``, where
            ``kept(i, dim)`` is the mask of kept indices of the i-th tensor argument.
        literals: rewrites the sizes among a call's arguments in the emitted graph; None where it holds none.
    """

    couple: Couple | None = None
    mixes: bool | Callable[..., bool] = False
    shrink: Callable[..., Any] | None = None
    literals: Literals | None = None


RULES: dict[str, Rule] = {}


def register_rule(*ops: str, mixes: bool | Callable[..., bool] = False, shrink: Callable[..., Any] | None = None,
                  literals: Literals | None = None) -> Callable[[Couple], Couple]:
    """Register the rule of one or more operators, by qualified name (``"aten::relu"``, ``"mylib::gate"``).

    Args:
        ops: the operators.
        mixes: whether an output depends on which channels are there at all, or a predicate of the operands.
        shrink: rewrites the operator's own sizes where verification computes it over the kept channels.
        literals: rewrites the sizes that its calls in a graph hold, however they are spelled (`register_literals`).

    Raises:
        InputError: an operator has a rule already, or its name is not qualified.
    """

    def register(couple: Couple) -> Couple:
        for op in ops:
            if "::" not in op:
                raise InputError(f"a rule needs a qualified operator name, got {op!r}; write 'namespace::{op}'")
            known = RULES.get(op, Rule())
            if known.couple is not None:
                raise InputError(f"operator {op!r} already has the rule {known.couple.__name__!r}; "
                                 f"remove it first: del fxprune.rules.registry.RULES[{op!r}]")
            RULES[op] = Rule(couple, mixes, shrink, literals or known.literals)
        return couple

    return register


def register_literals(*calls: str | Callable[..., Any]) -> Callable[[Literals], Literals]:
    """Register how calls in a graph are rewritten where a size that they hold has shrunk: those of an operator, by its
    qualified name, or of a Python function that calls several operators, by the function itself.

    The function that is registered is called as ``literals(site, target, args, kwargs)`` with what the graph's node
    holds, and returns the same three for the smaller graph. ``site.outs()`` are the new shapes of the call's results,
    ``site.lengths(arg)`` and ``site.masks(arg)`` what is left of an argument's dimensions, ``site.size(arg, n)`` is a
    size that must be n now, and ``raise site.refuse(why)`` freezes what reaches the call.

    Raises:
        InputError: a call has literals already, or its name is not qualified.

    >>> @register_literals("demo::head")
    ... def head(site, target, args, kwargs):  # demo::head(x, n)
    ...     return target, (args[0], site.size(args[1], site.outs()[0][1])), kwargs
    >>> del RULES["demo::head"]
    """

    def register(literals: Literals) -> Literals:
        for call in calls:
            if isinstance(call, str) and "::" not in call:
                raise InputError(f"literals need a qualified name or a function, got {call!r}; write 'aten::{call}' "
                                 "for what torch calls so, or pass the function")
            name = call if isinstance(call, str) else qualified(call)
            known = RULES.get(name, Rule())
            if known.literals is not None:
                raise InputError(f"{name!r} already has the literals {known.literals.__name__!r}; "
                                 f"remove it first: del fxprune.rules.registry.RULES[{name!r}]")
            RULES[name] = replace(known, literals=literals)
        return literals

    return register


def rule_for(op: str) -> Rule | None:
    """The rule of an operator; in-place and ``out`` variants share the record of their base."""
    if op in RULES:
        return RULES[op]
    namespace, _, name = op.partition("::")
    base = name.rstrip("_")
    return RULES.get(f"{namespace}::{base}") if base != name and not name.startswith("__") else None


def couple_of(op: str) -> Couple | None:
    """How an operator couples its operands, or None where no rule says so."""
    rule = rule_for(op)
    return rule.couple if rule else None


def literals_of(target: Any) -> Literals | None:
    """What rewrites the sizes in a graph's calls of this target, or None where they hold none."""
    rule = rule_for(qualified(target))
    return rule.literals if rule else None
