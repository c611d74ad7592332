"""Repeating: a dimension that is broadcast, laid out again and again, or repeated index by index."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fxprune.rules.literals import Call, output_sizes
from fxprune.rules.operands import BROADCAST, argument, axis, broadcast, free, freeze_dims, replaced
from fxprune.rules.registry import Operand, register_rule


@register_rule("aten::expand", "aten::expand_copy", "aten::broadcast_to", literals=output_sizes)
def expand(op, x, size, implicit=False):
    """A dimension of length 1 repeats a single index: it is constant along the new one, whose length is free."""
    shape = op.shapes[0]
    new = len(shape) - len(x)
    return tuple(_repeated(op, x, d - new, n) for d, n in enumerate(shape))


def _repeated(op, x: Operand, d: int, n: int):
    if d >= 0 and len(x[d]) == n:
        return x[d]
    if d >= 0:
        op.freeze(x[d], BROADCAST)
    return op.fresh(n) if n > 1 else op.fixed(n)


@register_rule("aten::expand_as")
def expand_as(op, x, other):
    """A repeated dimension has the length of the other tensor's."""
    return broadcast(op, x, other)


# What a tensor stays the same under, and so the same along its dims.
_UNTOUCHED = {f"aten::{name}" for name in ("to", "_to_copy", "clone", "alias", "detach", "logical_not", "bitwise_not")}
_SPREAD = {f"aten::{name}" for name in ("expand", "expand_copy", "expand_as", "broadcast_to")}


def repeated_dims(op: str, operands: Sequence[Operand], shape: Sequence[int]) -> frozenset[int]:
    """The dims of an output along which it is the same throughout, as far as expanding made it so.

    >>> mask = Operand((np.arange(4), np.arange(1)))
    >>> repeated_dims("aten::expand", [mask], (4, 8))
    frozenset({1})
    """
    if op not in _SPREAD | _UNTOUCHED or not operands:
        return frozenset()
    new = len(shape) - len(operands[0])
    spread = {d for d, n in enumerate(shape) if n > 1 and (d < new or len(operands[0][d - new]) == 1)}
    return frozenset(d + new for d in operands[0].repeated) | (spread if op in _SPREAD else set())


def _copies(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """A repeated single index makes as many copies as are kept; other repeats count whole copies of what is left."""
    given = argument(args, kwargs, 1, "repeats", kwargs.get("dims"))
    flat = not isinstance(given, (tuple, list))
    counts = list(args[1:]) if flat else list(given)
    into, out = site.lengths(args[0]), site.outs()[0]
    into, beyond = (1,) * (len(out) - len(into)) + into, len(out) - len(counts)
    new = [site.size(count, length // n)
           for count, length, n in zip([1] * beyond + counts, out, into, strict=True)]
    new = new[beyond:] if new[:beyond] == [1] * beyond else new  # as it is written, where `tile` adds ones itself
    if flat:
        return target, (args[0], *new), {}
    name = next(iter(kwargs), "")
    return (target, args, {name: tuple(new)}) if name else (target, (args[0], tuple(new)), {})


@register_rule("aten::repeat", "aten::tile", literals=_copies)
def repeat(op, x, repeats):
    """The whole dimension again and again; a single index becomes a dimension that is constant along its length."""
    shape = op.shapes[0]
    repeats = [1] * (len(shape) - len(repeats)) + list(repeats)
    new = len(shape) - len(x)
    return tuple(_repeated(op, x, d - new, n) if d < new or len(x[d - new]) == 1 else
                 np.tile(x[d - new], times) if free(x[d - new]) else op.fixed(n)
                 for d, (n, times) in enumerate(zip(shape, repeats, strict=True)))


def _counted(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``output_size`` is how many are left."""
    if kwargs.get("output_size") is None:
        return target, args, kwargs
    (out,) = site.outs()
    dim = argument(args, kwargs, 2, "dim", None)
    return target, args, {**kwargs, "output_size": site.size(kwargs["output_size"], out[0 if dim is None else dim])}


@register_rule("aten::repeat_interleave", literals=_counted)
def repeat_interleave(op, x, repeats=None, dim=None, *, output_size=None):
    """Every index several times in a row, as many as an integer says; where a tensor does, its length must fit."""
    if repeats is None:
        return op.unknown(x, why="the length of repeat_interleave depends on the data")[0]
    if dim is None and len(x) > 1:
        return op.unknown(x, why="repeat_interleave without a dimension flattens")[0]
    d = axis(0 if dim is None else dim, len(x))
    if isinstance(repeats, Operand):
        freeze_dims(op, repeats, range(len(repeats)), "counts of repetitions")
        held = freeze_dims(op, x, [d], "repeated as often as another tensor says")
        return replaced(held, d, op.fixed(op.shapes[0][d]))
    return replaced(x.vectors, d, np.repeat(x[d], repeats))
