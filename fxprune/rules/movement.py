"""Data movement along a dimension: what happens to the elements happens to the dim vector, index by index.

Composites that only call these (`hstack`, `column_stack`, `vsplit`, …) have no rule of their own: they decompose.
"""

import operator
from typing import Any

import numpy as np
import torch

from fxprune.rules.literals import Call, along, number_before
from fxprune.rules.operands import (
    Vectors,
    argument,
    axes,
    axis,
    broadcast,
    free,
    freeze_dims,
    replaced,
    with_argument,
)
from fxprune.rules.registry import Operand, register_literals, register_rule
from fxprune.rules.subscripts import sliced


@register_rule("aten::cat", "aten::concat", "aten::concatenate")
def cat(op, tensors, dim=0):
    """Concatenates the vectors of one dimension and ties the others; legacy empty tensors of rank 1 are skipped."""
    parts = [x for x in tensors if len(x) > 1 or x.shape != (0,)] or tensors[:1]
    d = axis(dim, len(parts[0]))
    out = broadcast(op, [Operand(replaced(x.vectors, d, op.fixed(1))) for x in parts])
    return replaced(out, d, np.concatenate([x[d] for x in parts]))


@register_rule("aten::stack")
def stack(op, tensors, dim=0):
    """Ties all tensors, and adds a dimension that says which."""
    out = broadcast(op, tensors)
    d = axis(dim, len(out) + 1)
    return (*out[:d], op.fixed(len(tensors)), *out[d:])


def cut(x: Operand, dim: int, lengths: list[int]) -> list[Vectors]:
    """The tensor in consecutive pieces of these lengths."""
    ends = np.cumsum(lengths)
    return [replaced(x.vectors, dim, x[dim][end - n:end]) for n, end in zip(lengths, ends, strict=True)]


def _lengths(op, dim: int) -> list[int]:
    return [shape[dim] for shape in op.shapes]


def _pieces(site: Any, target: Any, args: Any, kwargs: Any, default: int = 0) -> Call:
    """Whatever the pieces were asked for, they are now pieces of given lengths; where the dimension did not shrink, as
    a batch cut in halves, they may be of any length that was asked for."""
    x = argument(args, kwargs, 0, "tensor", kwargs.get("input"))
    dim = argument(args, kwargs, 2, "dim", default)
    if not site.shrunk() or site.masks(x)[site.value(dim)].all():
        return target, args, kwargs
    lengths = [shape[site.value(dim)] for shape in site.outs()]
    return ("split" if isinstance(target, str) else torch.split), (x, lengths, dim), {}


def _pieces_along(dim: int):
    """Of `hsplit` and the like, which have their dimension in the name and run as `tensor_split`."""

    def literals(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
        rank = len(site.masks(argument(args, kwargs, 0, "input", None)))
        return _pieces(site, target, args, kwargs, min(dim, rank - 1))

    return literals


for _dim, _name in enumerate(("vsplit", "hsplit", "dsplit")):
    register_literals(f"aten::{_name}")(_pieces_along(_dim))


@register_rule("aten::split", "aten::split_with_sizes", "aten::chunk", "aten::tensor_split", "aten::unsafe_split",
               "aten::unsafe_split_with_sizes", "aten::unsafe_chunk", literals=_pieces)
def split(op, x, sizes, dim=0):
    """The pieces are as long as the outputs are; for `tensor_split` by a tensor too."""
    d = axis(dim, len(x))
    return cut(x, d, _lengths(op, d))


def _bounds(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """``torch.ops.aten.slice(x, dim, start, end, step)``, written as a subscript."""
    dim, kept = along(site, args, kwargs, default=0)
    if kept.all():
        return target, args, kwargs
    bounds = slice(*(argument(args, kwargs, at, name, None) for at, name in enumerate(("start", "end", "step"), 2)))
    whole = (slice(None),) * (axis(dim, len(site.shape(args[0]))))
    return operator.getitem, (args[0], (*whole, sliced(site, bounds, kept))), {}


@register_rule("aten::slice", literals=_bounds)
def slice_(op, x, dim=0, start=None, end=None, step=1):
    """Python's slices, out of range ends included."""
    return replaced(x.vectors, axis(dim, len(x)), x[axis(dim, len(x))][start:end:step])


def _window(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """Start and length among the kept."""
    dim, kept = along(site, args, kwargs)
    if kept.all():
        return target, args, kwargs
    start = site.value(argument(args, kwargs, 2, "start", None))
    args, kwargs = with_argument(args, kwargs, 2, "start", number_before(kept, start))
    return target, *with_argument(args, kwargs, 3, "length", site.outs()[0][dim])


@register_rule("aten::narrow", literals=_window)
def narrow(op, x, dim, start, length):
    """``length`` indices from ``start``; where the start is a tensor of unknown contents, the dimension is frozen."""
    d = axis(dim, len(x))
    if isinstance(start, Operand):
        if start.value is None:
            return replaced(freeze_dims(op, x, [d], "narrowed from a start that is not known"), d, op.fixed(length))
        start = int(start.value)
    start = start + len(x[d]) if start < 0 else start
    return replaced(x.vectors, d, x[d][start:start + length])


def _selected(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """The index, by its number among the kept."""
    _, kept = along(site, args, kwargs)
    if kept.all():
        return target, args, kwargs
    index = site.value(argument(args, kwargs, 2, "index", None))
    return target, *with_argument(args, kwargs, 2, "index", number_before(kept, index))


@register_rule("aten::select", literals=_selected)
def select(op, x, dim, index):
    """One index leaves its dimension, and so must stay; the others of that dimension are free."""
    d = axis(dim, len(x))
    at = index % len(x[d])
    op.freeze(x[d][at:at + 1], "selected by its index")
    return replaced(x.vectors, d)


@register_rule("aten::unbind", "aten::unbind_copy")
def unbind(op, x, dim=0):
    """Every index becomes a tensor of its own, and so must stay."""
    d = axis(dim, len(x))
    op.freeze(x[d], "unbound: every index is a tensor of its own")
    return [replaced(x.vectors, d) for _ in op.shapes]


@register_rule("aten::flip")
def flip(op, x, dims):
    """Reverses dimensions."""
    return tuple(v[::-1] if d in axes(dims, len(x)) and len(dims) else v for d, v in enumerate(x.vectors))


@register_rule("aten::rot90")
def rot90(op, x, k=1, dims=(0, 1)):
    """Quarter turns in the plane of two dimensions: an odd number exchanges them, and one of them is reversed."""
    first, second = (axis(d, len(x)) for d in dims)
    out, turns = list(x.vectors), k % 4
    if turns in (1, 3):
        out[first], out[second] = out[second], out[first]
    for d, reversing in ((first, (1, 2)), (second, (2, 3))):
        if turns in reversing:
            out[d] = out[d][::-1]
    return tuple(out)


def _shifts(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """A roll by s is, among the kept, a roll by as many of them as s carried over the end."""
    dims, masks = argument(args, kwargs, 2, "dims", None), site.masks(args[0])
    if dims in (None, (), []) or all(mask.all() for mask in masks):
        return target, args, kwargs
    shifts = argument(args, kwargs, 1, "shifts", None)
    listed = isinstance(shifts, (tuple, list))
    pairs = zip(*((v if isinstance(v, (tuple, list)) else (v,)) for v in (shifts, dims)), strict=True)
    new = tuple(shift if masks[dim].all() else _carried(masks[dim], site.value(shift)) for shift, dim in pairs)
    return target, *with_argument(args, kwargs, 1, "shifts", new if listed else new[0])


def _carried(kept: np.ndarray, shift: int) -> int:
    """How many kept indices a roll by ``shift`` carries over the end."""
    return int(kept[len(kept) - shift % len(kept):].sum())


@register_rule("aten::roll", literals=_shifts)
def roll(op, x, shifts, dims=()):
    """Rotates dimensions; without ``dims`` the tensor is rotated as one line."""
    shifts = [shifts] if isinstance(shifts, int) else shifts
    dims = [dims] if isinstance(dims, int) else dims
    if not len(dims) and len(x) > 1:
        return freeze_dims(op, x, range(len(x)), "rolled across dimensions")
    out = list(x.vectors)
    for dim, shift in zip(dims or [0], shifts, strict=True):
        d = axis(dim, len(x))
        out[d] = np.roll(out[d], shift) if free(out[d]) else out[d]
    return tuple(out)


@register_rule("aten::slice_scatter")
def slice_scatter(op, x, src, dim=0, start=None, end=None, step=1):
    """``x`` with a slice of it replaced, whose bounds are numbers: that dimension is frozen, the others tied."""
    d = axis(dim, len(x))
    freeze_dims(op, x, [d], "a slice of it is replaced")
    broadcast(op, Operand(replaced(x.vectors, d, x[d][start:end:step])), src)
    return x.vectors


@register_rule("aten::select_scatter")
def select_scatter(op, x, src, dim, index):
    """``x`` with one index replaced, which is a number: that dimension is frozen, the others tied."""
    d = axis(dim, len(x))
    freeze_dims(op, x, [d], "one of its indices is replaced")
    broadcast(op, Operand(replaced(x.vectors, d)), src)
    return x.vectors


@register_rule("aten::channel_shuffle", "aten::native_channel_shuffle")
def channel_shuffle(op, x, groups):
    """``[g, C/g]`` transposed to ``[C/g, g]``: the groups stay equal, so that the same positions in each go."""
    if groups == 1 or groups == len(x[1]) or not free(x[1]):
        return x.vectors
    kept = x[1][:len(x[1]) // groups]
    op.tie(np.tile(kept, groups), x[1])
    return replaced(x.vectors, 1, np.repeat(kept, groups))


def blocks(op, x: Operand, dim: int, size: int):
    """Ties every block of ``size`` consecutive indices; gives one entry per block."""
    kept = x[dim][::size]
    op.tie(np.repeat(kept, size), x[dim])
    return kept


@register_rule("aten::pixel_shuffle")
def pixel_shuffle(op, x, upscale_factor):
    """``[C·r², H, W] -> [C, H·r, W·r]``: blocks of r² channels."""
    d = len(x) - 3
    kept = blocks(op, x, d, upscale_factor ** 2)
    freeze_dims(op, x, [d + 1, d + 2], "positions of a picture")
    return (*x.vectors[:d], kept, *(op.fixed(n) for n in op.shapes[0][-2:]))


@register_rule("aten::pixel_unshuffle")
def pixel_unshuffle(op, x, downscale_factor):
    """``[C, H·r, W·r] -> [C·r², H, W]``: every channel r² times."""
    d = len(x) - 3
    freeze_dims(op, x, [d + 1, d + 2], "positions of a picture")
    return (*x.vectors[:d], np.repeat(x[d], downscale_factor ** 2), *(op.fixed(n) for n in op.shapes[0][-2:]))


@register_rule("aten::glu")
def glu(op, x, dim=-1):
    """One half gates the other: both halves are tied."""
    d = axis(dim, len(x))
    half = len(x[d]) // 2
    op.tie(x[d][:half], x[d][half:])
    return replaced(x.vectors, d, x[d][:half])
