"""Small words that the rules share: which operands there are, which dims are meant, which vectors are free."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fxprune.ir.trees import leaves
from fxprune.ir.units import Vector
from fxprune.rules.registry import Operand

BROADCAST = "its single index is broadcast over a dimension"
Vectors = tuple[Vector, ...]


def operands(*tree: Any) -> Iterator[Operand]:
    """The tensors in nested arguments, in order."""
    return iter(leaves(tree, Operand))


def free(vector: Vector) -> bool:
    """Whether any index of the vector is a unit."""
    return bool(np.count_nonzero(vector >= 0))


def is_weight(x: Operand) -> bool:
    """Whether the operand is a parameter, or made from parameters alone (a transposed one)."""
    return x.is_param or x.is_weight


def nth(value: Any, k: int) -> Any:
    """The k-th entry of what may be one number, one word, or a list of one or more."""
    return value if isinstance(value, (int, str)) else value[k if len(value) > 1 else 0]


# What a `shrink` asks: ``kept(i, dim)`` is the boolean mask of what is kept along a dimension of the i-th tensor.
Kept = Callable[[int, int], np.ndarray]


def argument(args: Sequence[Any], kwargs: dict, at: int, name: str, default: Any) -> Any:
    """An argument that is passed by position, by name, or not at all."""
    return args[at] if len(args) > at else kwargs.get(name, default)


def with_argument(args: Sequence[Any], kwargs: dict, at: int, name: str, value: Any) -> tuple[tuple, dict]:
    """The same call with another value for one argument."""
    if len(args) > at:
        return (*args[:at], value, *args[at + 1:]), kwargs
    return tuple(args), {**kwargs, name: value}


def axis(dim: int, rank: int) -> int:
    """The dimension as a non-negative number."""
    return dim % max(rank, 1)


def axes(dim: Any, rank: int) -> list[int]:
    """The dimensions as sorted non-negative numbers; ``None``, ``()`` and booleans stand for all of them."""
    if dim is None or isinstance(dim, bool) or (not isinstance(dim, int) and len(dim) == 0):
        return list(range(rank))
    dims = [dim] if isinstance(dim, int) else dim
    return sorted({axis(d, rank) for d in dims}) if rank else []


def replaced(vectors: Sequence[Vector], dim: int, *new: Vector) -> Vectors:
    """The vectors with the one at ``dim`` replaced by ``new`` (none: it is dropped)."""
    return (*vectors[:dim], *new, *vectors[dim + 1:])


def freeze_dims(op, x: Operand, dims: Sequence[int], why: str) -> Vectors:
    """Freeze some dimensions of an operand; gives its vectors with these fixed, all others as they were."""
    held = {d: why for d in dims if free(x[d])}
    for d in held:
        op.freeze(x[d], why)
    return tuple(op.fixed(len(v), why) if d in held else v for d, v in enumerate(x.vectors))


def fixed_outputs(op, why: str = "") -> list[Vectors]:
    """Outputs of which nothing can change."""
    return [tuple(op.fixed(n, why) for n in shape) for shape in op.shapes]


def broadcast(op, *tree: Any) -> Vectors:
    """Align all operands from the right and tie them: the elementwise rule.

    A unit that alone makes up a dimension and is broadcast over a longer one is frozen: without it the longer
    dimension would have nothing to be combined with.
    """
    tensors = list(operands(*tree))
    out = op.pointwise(*tensors)
    for x in tensors:
        for vector, result in zip(x.vectors[::-1], out[::-1], strict=False):
            if len(vector) == 1 and len(result) != 1:
                op.freeze(vector, BROADCAST)
    return out


def cost(op, *vectors: Vector) -> None:
    """A contraction over these vectors costs the product of their lengths; the fixed ones count as positions."""
    positions, factors = 1, []
    for vector in vectors:
        if free(vector):
            factors.append(vector)
        else:
            positions *= len(vector)
    op.contract(positions, *factors)
