"""Reshapes: a split of dimensions into atoms and a merge of atoms into dimensions (`fxprune.ir.reshapes`).

Two decisions are taken here, both by `Op.choose`, so that the next candidate is tried where the first is frozen:
which factor of a split dimension carries its channels, and which of several free factors a merged dimension keeps.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch

from fxprune.ir import reshapes
from fxprune.ir.units import Vector
from fxprune.rules.literals import Call, output_sizes, sizes
from fxprune.rules.operands import Vectors, argument, axes, axis, free, replaced, with_argument
from fxprune.rules.registry import Operand, register_rule

SPLIT = "the dimension is split, and another of its factors carries the channels"
PRODUCT = "product of two free factors: the other one carries the channels"
RAGGED = "the reshape cuts across this dimension"
DROPPED = "a dimension of length 1 is dropped"
SMALL = 4


def reshape(op, x: Operand, shape: Sequence[int]) -> Vectors:
    """The vectors of ``x``, read in another shape."""
    if x.shape == tuple(shape):
        return x.vectors
    if prod(shape) == 0:
        return _empty(op, x, shape)
    for stage in reshapes.stages(x.shape, shape):
        x = replace(x, vectors=_reshaped(op, x, stage), value=None)
    return x.vectors


def _reshaped(op, x: Operand, shape: Sequence[int]) -> Vectors:
    out = {d: op.fixed(1) for d, n in enumerate(shape) if n == 1}
    for d, target in reshapes.ones(x.shape, shape).items():
        if target is None:
            op.freeze(x[d], DROPPED)
        else:
            out[target] = x[d]
    for group in reshapes.groups(x.shape, shape):
        for d, vector in zip(group.dst, _regroup(op, x, group, shape), strict=True):
            out[d] = vector
    return tuple(out[d] for d in range(len(shape)))


def _empty(op, x: Operand, shape: Sequence[int]) -> Vectors:
    for vector in x.vectors:
        op.freeze(vector, "an empty tensor is reshaped")
    return tuple(op.fixed(n) for n in shape)


def _regroup(op, x: Operand, group: reshapes.Group, shape: Sequence[int]) -> list[Vector]:
    """The target dims' vectors of one group."""
    if group.sizes is None:
        if not any(free(x[d]) for d in group.src):
            return [_constant(min(int(x[e][0]) for e in group.src), shape[d]) for d in group.dst]
        for d in group.src:
            op.freeze(x[d], RAGGED)
        return [op.fixed(shape[d], RAGGED) for d in group.dst]
    atoms: list[Vector] = []
    for d, part in zip(group.src, group.src_atoms, strict=True):
        atoms += _split(op, x, d, [group.sizes[k] for k in part], len(shape))
    return [_merge(op, [atoms[k] for k in part], x.is_param) for part in group.dst_atoms]


def _split(op, x: Operand, dim: int, sizes: list[int], rank_out: int) -> list[Vector]:
    """The vector of one source dimension, as one vector per atom: at most one of them is free."""
    vector = x[dim]
    if len(sizes) == 1:
        return [vector]
    if not free(vector):
        return [_constant(vector[0], n) for n in sizes]
    vary = reshapes.varying(vector, sizes)
    order = [k for k in _split_order(op, x, dim, sizes, rank_out) if k in vary and reshapes.viable(vector, sizes, k)]
    if not order:  # one unit throughout, or fixed indices across every factor
        op.freeze(vector, SPLIT)
        return [op.fixed(n, SPLIT) for n in sizes]
    carrier = order[op.choose(len(order)) if len(vary) > 1 else 0]
    carried = reshapes.along(vector, sizes, carrier)
    if len(vary) > 1:
        op.tie(reshapes.spread(carried, sizes, carrier), vector)
        op.hinge(carried)
    return [carried if k == carrier else op.fixed(n, SPLIT) for k, n in enumerate(sizes)]


def _split_order(op, x: Operand, dim: int, sizes: list[int], rank_out: int) -> list[int]:
    """Which factor should carry the channels, the best first.

    * A channel dimension before positions (images) is split in ``(groups, channels)``: the larger factor. With
      ``heads="whole"`` a first factor of at least `SMALL` is taken for attention heads.
    * A last dimension (tokens) is split in ``(…, heads, head_dim)``: the last factor, or the one before it with
      ``heads="whole"``. A last factor of 2 or 3 beside a large one, or behind heads that were split off before, is a
      pair of components (rotary embeddings).
    * ``[B, C·H·W]`` that becomes an image: C.
    """
    factors = range(len(sizes))
    larger = sorted(factors, key=lambda k: (-sizes[k], -k))
    if len(x) == 2 and dim == 1 and len(sizes) >= 3 and rank_out == len(sizes) + 1 and sizes[0] != 3:
        return list(factors)
    whole = op.policy.heads == "whole"
    if dim != len(x) - 1:
        return list(factors) if whole and len(sizes) == 2 and sizes[0] >= SMALL else larger
    if whole:
        return [*list(factors)[-2::-1], len(sizes) - 1]
    pair = sizes[-1] < SMALL and (max(sizes) >= 2 * SMALL or rank_out > 4)
    return larger if pair else list(factors)[::-1]


def _merge(op, atoms: list[Vector], is_param: bool) -> Vector:
    """One vector over several atoms. Of several free ones the largest is kept; of a parameter's the first (its later
    dimensions are a kernel's positions, as a rule)."""
    if len(atoms) == 1:
        return atoms[0]
    sizes = [len(atom) for atom in atoms]
    candidates = [k for k, atom in enumerate(atoms) if free(atom)]
    if not candidates:
        return _constant(min(int(atom[0]) for atom in atoms), prod(sizes))
    kept = candidates[0]
    if len(candidates) > 1:
        if not is_param:
            candidates.sort(key=lambda k: (-len(np.unique(atoms[k])), k))
        kept = candidates[op.choose(len(candidates))]
        op.hinge(atoms[kept], excluding=True)
        for k in candidates:
            if k != kept:
                op.freeze(atoms[k], PRODUCT)
    return reshapes.spread(atoms[kept], sizes, kept)


def _constant(entry: int, n: int) -> Vector:
    return np.broadcast_to(np.int64(entry), (n,))


def _sizes_of_one(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``x.unflatten(dim, sizes)``: those of the dimension that is split."""
    dim = argument(args, kwargs, 1, "dim", None) % len(site.shape(args[0]))
    given = argument(args, kwargs, 2, "sizes", None)
    new = sizes(site, given, site.outs()[0][dim:dim + len(given)])
    return target, *with_argument(args, kwargs, 2, "sizes", new)


@register_rule("aten::view", "aten::view_copy", "aten::reshape", "aten::_unsafe_view", literals=output_sizes)
@register_rule("aten::unflatten", literals=_sizes_of_one)
@register_rule("aten::flatten", "aten::ravel")
def viewed(op, x, *args, **kwargs):
    """All that a reshape needs is the shape that came out. ``view(dtype)`` changes the last dimension's meaning."""
    if op.name == "aten::view" and op.overload == "dtype":
        return x.vectors if x.shape == op.shapes[0] else op.unknown(x, why="view(dtype) regroups bytes")[0]
    return reshape(op, x, op.shapes[0])


@register_rule("aten::view_as", "aten::reshape_as")
def view_as(op, x, other):
    """The size is the other tensor's: both shrink alike."""
    out = reshape(op, x, other.shape)
    for a, b in zip(out, other.vectors, strict=True):
        op.tie(a, b)
    return out


def _ones_named(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """Only dimensions of length 1 in the original are squeezed: a channel dimension may have shrunk to 1."""
    shape, lengths = site.shape(args[0]), site.lengths(args[0])
    dims = argument(args, kwargs, 1, "dim", tuple(range(len(shape))))
    dims = tuple(dims) if isinstance(dims, (tuple, list)) else (dims,)
    if 1 not in lengths or not any(lengths[d] == 1 != shape[d] for d in dims):
        return target, args, kwargs
    return target if isinstance(target, str) else torch.squeeze, (args[0], tuple(d for d in dims if shape[d] == 1)), {}


@register_rule("aten::squeeze", "aten::squeeze_copy", literals=_ones_named)
def squeeze(op, x, dim=None):
    """Drops dimensions of length 1; a unit in one of them must stay."""
    gone = [d for d in axes(dim, len(x)) if len(x[d]) == 1]
    for d in gone:
        op.freeze(x[d], DROPPED)
    return tuple(v for d, v in enumerate(x.vectors) if d not in gone)


@register_rule("aten::unsqueeze", "aten::unsqueeze_copy")
def unsqueeze(op, x, dim):
    """Adds a dimension of length 1."""
    at = axis(dim, len(x) + 1)
    return (*x.vectors[:at], op.fixed(1), *x.vectors[at:])


@register_rule("aten::atleast_1d", "aten::atleast_2d", "aten::atleast_3d")
def atleast(op, x):
    """Dimensions of length 1 are added where there are too few, to one tensor or to each of several."""
    if isinstance(x, Operand):
        return reshape(op, x, op.shapes[0])
    return [reshape(op, each, shape) for each, shape in zip(x, op.shapes, strict=True)]


@register_rule("aten::view_as_real", "aten::view_as_complex")
def view_as_components(op, x):
    """Real and imaginary part are the last dimension, of length 2."""
    if op.name == "aten::view_as_real":
        return (*x.vectors, op.fixed(2))
    op.freeze(x[-1], "real and imaginary part")
    return x.vectors[:-1]


@register_rule("aten::permute", "aten::permute_copy")
def permute(op, x, dims):
    """Reorders the dimensions."""
    return tuple(x[axis(d, len(x))] for d in dims)


@register_rule("aten::transpose", "aten::transpose_copy", "aten::swapaxes", "aten::swapdims")
def transpose(op, x, dim0, dim1):
    """Exchanges two dimensions."""
    if not len(x):
        return ()
    out = list(x.vectors)
    a, b = axis(dim0, len(x)), axis(dim1, len(x))
    out[a], out[b] = out[b], out[a]
    return tuple(out)


@register_rule("aten::t", "aten::numpy_T", "aten::t_copy", "aten::matrix_H")
def reverse_dims(op, x):
    """All dimensions in reverse order."""
    return x.vectors[::-1]


@register_rule("aten::mT", "aten::mH", "aten::adjoint")
def last_two(op, x):
    """Exchanges the last two dimensions."""
    return (*x.vectors[:-2], x[-1], x[-2])


@register_rule("aten::movedim", "aten::moveaxis")
def movedim(op, x, source, destination):
    """Moves dimensions; the others keep their order."""
    pair = ([source], [destination]) if isinstance(source, int) else (source, destination)
    moves = {axis(d, len(x)): axis(s, len(x)) for s, d in zip(*pair, strict=True)}
    rest = iter(d for d in range(len(x)) if d not in moves.values())
    return tuple(x[moves[d]] if d in moves else x[next(rest)] for d in range(len(x)))


def _window(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``x.unfold(dim, size, step)``: windows that lie side by side stay so. (`F.unfold` is called so, too, and takes
    its patches from positions.)"""
    if target is torch.nn.functional.unfold:
        return target, args, kwargs
    size, step = (argument(args, kwargs, at, name, None) for at, name in ((2, "size"), (3, "step")))
    length = site.outs()[0][-1]
    alike = site.value(size) == site.value(step)
    args, kwargs = with_argument(args, kwargs, 2, "size", site.size(size, length))
    return target, *(with_argument(args, kwargs, 3, "step", site.size(step, length)) if alike else (args, kwargs))


@register_rule("aten::unfold", literals=_window)
def unfold(op, x, dimension, size, step):
    """Windows over one dimension; each window is a new last dimension. Where they lie side by side, or one spans it
    all, the dimension is split in two; where they overlap, every index has several places."""
    if not len(x):
        return op.unknown(x, why="windows over a scalar")[0]
    d, why = axis(dimension, len(x)), "windows slide over it"
    n = len(x[d])
    if n == size or size == step and n % size == 0:
        split = reshape(op, x, (*x.shape[:d], n // size, size, *x.shape[d + 1:]))
        return (*replaced(split, d + 1), split[d + 1])
    op.freeze(x[d], why)
    return (*replaced(x.vectors, d, op.fixed(op.shapes[0][d])), op.fixed(size))


@register_rule("aten::as_strided", "aten::as_strided_scatter")
def as_strided(op, x, *args, **kwargs):
    """Strides address memory, not dimensions: exact only where nothing changes."""
    return op.unknown(x, why="as_strided addresses memory, not dimensions")[0]
