"""Gathers and scatters: elements are addressed by index.

Where the contents of an index are known and it runs over one dimension, the gather is a movement like any other. Where
they are not, what it addresses is frozen, because a position is only a name as long as nobody before it leaves.
"""

from typing import Any

import numpy as np

from fxprune.rules.literals import Call, along, renumbered
from fxprune.rules.operands import argument, axis, broadcast, free, freeze_dims, operands, replaced, with_argument
from fxprune.rules.registry import Operand, register_rule
from fxprune.rules.subscripts import consumes

BY_INDEX = "addressed by an index that is not known"
TABLE = "rows of a table, looked up by index"


def moved(op, x: Operand, dim: int, index: Operand) -> np.ndarray | None:
    """The vector that a one-dimensional index puts in place of a dimension, or None where its contents are not known.

    A parameter whose rows are looked up again and again is a table: its rows are names, not channels. An index that
    is itself a buffer shrinks with what it fetches, a mask with what it is laid over.
    """
    value = index.value
    if value is None or value.ndim != 1 or (x.is_param and value.dtype != bool and len(np.unique(value)) < len(value)):
        return None
    if value.dtype == bool:
        op.tie(x[dim], index[0])
        return x[dim][np.flatnonzero(value)]
    found = x[dim][value.astype(np.int64)]
    if index.is_param:
        op.tie(found, index[0])
    return found


def _indices(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``torch.ops.aten.index(x, [None, i])``: a list with an entry per dimension, of which some are tensors."""
    masks, new, dim = site.masks(args[0]), [], 0
    for item in args[1]:
        width = 1 if item is None else consumes(site, item)
        new.append(item if item is None or width > 1 or masks[dim].all() else renumbered(site, item, masks[dim]))
        dim += width
    return target, (args[0], new, *args[2:]), kwargs


@register_rule("aten::index", "aten::_unsafe_index", literals=_indices)
def index(op, x, indices):
    """``x[i, :, j]``: one known index moves data; others address points."""
    where = [d for d, i in enumerate(indices) if i is not None]
    found = moved(op, x, where[0], indices[where[0]]) if len(where) == 1 else None
    if found is not None:
        return replaced(x.vectors, where[0], found)
    covered = _covered(indices)
    _freeze_points(op, x, indices, covered)
    rest = [x[d] for d in range(len(x)) if d not in covered]
    new = len(op.shapes[0]) - len(rest)
    # Neighbouring indices put their result in their own place, others put it in front.
    at = covered[0] if covered == list(range(covered[0], covered[-1] + 1)) else 0
    return (*rest[:at], *(op.fixed(n) for n in op.shapes[0][at:at + new]), *rest[at:])


def _covered(indices: list) -> list[int]:
    """The dims that are addressed. A mask covers as many as it has."""
    covered: list[int] = []
    d = 0
    for i in indices:
        if i is None:
            d += 1
            continue
        width = len(i) if i.is_mask else 1
        covered += range(d, d + width)
        d += width
    return covered


def _freeze_points(op, x: Operand, indices: list, covered: list[int]) -> None:
    freeze_dims(op, x, covered, TABLE if x.is_param else BY_INDEX)
    for part in operands(indices):
        freeze_dims(op, part, range(len(part)), "an index")


def _index(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    _, kept = along(site, args, kwargs)
    if kept.all():
        return target, args, kwargs
    index = renumbered(site, argument(args, kwargs, 2, "index", None), kept)
    return target, *with_argument(args, kwargs, 2, "index", index)


@register_rule("aten::index_select", literals=_index)
def index_select(op, x, dim, index):
    """A one-dimensional index."""
    if not len(x):
        return ()
    d = axis(dim, len(x))
    found = moved(op, x, d, index)
    if found is None:
        _freeze_points(op, x, [index], [d])
        found = op.fixed(op.shapes[0][d])
    return replaced(x.vectors, d, found)


@register_rule("aten::embedding")
def embedding(op, weight, indices, *args, **kwargs):
    """Rows of a table: the table produces the channels of its dim 1."""
    op.freeze(weight[0], TABLE)
    for vector in indices.vectors:
        op.freeze(vector, "an index")
    op.produces(weight[1])
    return (*(op.fixed(len(v)) for v in indices.vectors), weight[1])


@register_rule("aten::embedding_bag", "aten::_embedding_bag", "aten::_embedding_bag_forward_only")
def embedding_bag(op, weight, indices, offsets=None, *args, **kwargs):
    """Sums of rows, and three outputs of bookkeeping."""
    op.freeze(weight[0], TABLE)
    op.produces(weight[1])
    for part in operands(indices, offsets, args, kwargs):
        for vector in part.vectors:
            op.freeze(vector, "an index")
    first, *rest = op.shapes
    return [(op.fixed(first[0]), weight[1]), *(tuple(op.fixed(n) for n in shape) for shape in rest)]


@register_rule("aten::take_along_dim")
def take_along_dim(op, x, index, dim=None, *args, **kwargs):
    """As `gather`, but that both are broadcast over each other in the other dimensions."""
    if dim is None:
        return op.unknown(x, index, why=BY_INDEX)[0]
    d = axis(dim, len(x))
    freeze_dims(op, x, [d], BY_INDEX)
    freeze_dims(op, index, [d], "an index")
    return replaced(broadcast(op, *(Operand(replaced(part.vectors, d, op.fixed(1))) for part in (x, index))), d,
                    op.fixed(op.shapes[0][d]))


@register_rule("aten::gather")
def gather(op, x, dim, index, *args, **kwargs):
    """One dimension is addressed point by point; the others are tied where they are of one length."""
    if not len(x):
        return op.unknown(x, index, why=BY_INDEX)[0]
    d = axis(dim, len(x))
    freeze_dims(op, x, [d], BY_INDEX)
    freeze_dims(op, index, [d], "an index")
    return tuple(op.fixed(n) if k == d else _same(op, x[k], index[k]) if len(index) == len(x) else op.fixed(n)
                 for k, n in enumerate(op.shapes[0]))


def _same(op, a, b):
    """Two dims that run together: tied if they are of one length, else positions."""
    if len(a) == len(b):
        op.tie(a, b)
        return a if free(a) or not free(b) else b
    op.freeze(a, BY_INDEX)
    op.freeze(b, BY_INDEX)
    return op.fixed(min(len(a), len(b)))


SCATTERS = "scatter scatter_add scatter_reduce".split()


@register_rule(*(f"aten::{name}" for name in SCATTERS))
def scatter(op, x, dim, index, src, *args, **kwargs):
    """Writes into one dimension point by point."""
    if not len(x):
        return ()
    d = axis(dim, len(x))
    freeze_dims(op, x, [d], BY_INDEX)
    for part in operands(index, src):
        if not len(part):
            continue
        freeze_dims(op, part, [d], BY_INDEX)
        for k in range(len(x)):
            if k != d:
                _same(op, x[k], part[k])
    return x.vectors


@register_rule("aten::index_add", "aten::index_copy", "aten::index_reduce", literals=_index)
def index_add(op, x, dim, index, source, *args, **kwargs):
    """Writes whole slices into one dimension, each to where the index says."""
    if not len(x):
        return ()
    d = axis(dim, len(x))
    found = moved(op, x, d, index)
    if found is None:
        _freeze_points(op, x, [index], [d])
        found = op.fixed(len(index[0]) if len(index) else 1, BY_INDEX)
    if len(source) == len(x):
        op.tie(source[d], found)
        broadcast(op, Operand(replaced(x.vectors, d, op.fixed(1))), Operand(replaced(source.vectors, d, op.fixed(1))))
    return x.vectors


@register_rule("aten::index_fill", literals=_index)
def index_fill(op, x, dim, index, value):
    """Writes a number into slices of one dimension."""
    if len(x) and moved(op, x, axis(dim, len(x)), index) is None:
        _freeze_points(op, x, [index], [axis(dim, len(x))])
    return x.vectors


@register_rule("aten::index_put", "aten::_unsafe_index_put", "aten::_index_put_impl")
def index_put(op, x, indices, values, *args, **kwargs):
    """``x[i, :, j] = values``: what is addressed is frozen, what lies behind it tied with the values' last dims."""
    covered = _covered(indices)
    _freeze_points(op, x, indices, covered)
    behind = x.vectors[covered[-1] + 1:] if covered == list(range(covered[0], covered[-1] + 1)) else ()
    kept = min(len(behind), len(values))
    freeze_dims(op, values, range(len(values) - kept), BY_INDEX)
    freeze_dims(op, x, range(len(x) - len(behind)) if len(values) > kept else covered, BY_INDEX)
    broadcast(op, Operand(behind), Operand(values.vectors[len(values) - kept:]))
    return x.vectors


@register_rule("aten::masked_scatter")
def masked_scatter(op, x, mask, source):
    """Elements of the source, in order, go where the mask says. Trailing dims along which the mask is the same are
    written as a whole, so that they run along with the source's: features in place of tokens."""
    whole = 0
    while whole < min(len(x), len(mask), len(source)) and _same_along(mask, len(mask) - 1 - whole) \
            and len(source[-1 - whole]) == len(x[-1 - whole]):
        whole += 1
    if not whole:
        return op.unknown(x, mask, source, why="masked_scatter reads positions from the data")[0]
    for part in (x, mask, source):
        freeze_dims(op, part, range(len(part) - whole), BY_INDEX)
    for d in range(-whole, 0):
        op.tie(x[d], source[d])
        if len(mask[d]) > 1:
            op.tie(x[d], mask[d])
    return (*(op.fixed(len(v)) for v in x.vectors[:-whole]), *x.vectors[-whole:])


def _same_along(mask: Operand, dim: int) -> bool:
    return len(mask[dim]) == 1 or dim in mask.repeated


# The length, or every element of the result, depends on the data or on memory order: nothing that reaches them may go.
OPAQUE = """
nonzero nonzero_static argwhere masked_select take put unique_dim unique_consecutive _unique _unique2
bincount histc histogram searchsorted multinomial segment_reduce
""".split()


@register_rule(*(f"aten::{name}" for name in OPAQUE))
def opaque(op, *args, **kwargs):
    """The result depends on the contents in a way that no dimension survives."""
    out = op.unknown(*operands(args, kwargs), why=f"{op.name.rpartition('::')[2]} reads positions from the data")
    return out if len(out) > 1 else out[0]


@register_rule("aten::bucketize")
def bucketize(op, x, boundaries, *args, **kwargs):
    """Elementwise; the boundaries are read as a whole."""
    freeze_dims(op, boundaries, range(len(boundaries)), "boundaries of buckets")
    return x.vectors if isinstance(x, Operand) else ()


@register_rule("aten::one_hot")
def one_hot(op, x, num_classes=-1):
    """The contents become a dimension."""
    return (*x.vectors, op.fixed(op.shapes[0][-1]))


@register_rule("aten::meshgrid", "aten::cartesian_prod", "aten::combinations")
def grids(op, tensors, *args, **kwargs):
    """Coordinates: each tensor becomes a dimension of all outputs."""
    out = op.unknown(*operands(tensors), why="a grid of coordinates")
    return out if len(out) > 1 or op.name == "aten::meshgrid" else out[0]
