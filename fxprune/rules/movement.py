"""Data movement along a dimension: what happens to the elements happens to the dim vector, index by index.

Composites that only call these (`hstack`, `column_stack`, `rot90`, …) have no rule of their own: they decompose.
"""

from typing import Any

import numpy as np

from fxprune.rules.operands import BROADCAST, Vectors, axes, axis, broadcast, free, freeze_dims, replaced
from fxprune.rules.registry import Operand, register_rule


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


@register_rule("aten::split", "aten::split_with_sizes", "aten::chunk", "aten::tensor_split", "aten::unsafe_split",
               "aten::unsafe_split_with_sizes", "aten::unsafe_chunk")
def split(op, x, sizes, dim=0):
    """The pieces are as long as the outputs are; for `tensor_split` by a tensor too."""
    d = axis(dim, len(x))
    return cut(x, d, _lengths(op, d))


@register_rule("aten::slice")
def slice_(op, x, dim=0, start=None, end=None, step=1):
    """Python's slices, out of range ends included."""
    return replaced(x.vectors, axis(dim, len(x)), x[axis(dim, len(x))][start:end:step])


@register_rule("aten::narrow")
def narrow(op, x, dim, start, length):
    """``length`` indices from ``start``; where the start is a tensor of unknown contents, the dimension is frozen."""
    d = axis(dim, len(x))
    if isinstance(start, Operand):
        if start.value is None:
            return replaced(freeze_dims(op, x, [d], "narrowed from a start that is not known"), d, op.fixed(length))
        start = int(start.value)
    start = start + len(x[d]) if start < 0 else start
    return replaced(x.vectors, d, x[d][start:start + length])


@register_rule("aten::select")
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


@register_rule("aten::roll")
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


@register_rule("aten::expand", "aten::broadcast_to")
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


@register_rule("aten::repeat", "aten::tile")
def repeat(op, x, repeats):
    """The whole dimension again and again; a single index becomes a dimension that is constant along its length."""
    shape = op.shapes[0]
    repeats = [1] * (len(shape) - len(repeats)) + list(repeats)
    new = len(shape) - len(x)
    return tuple(_repeated(op, x, d - new, n) if d < new or len(x[d - new]) == 1 else
                 np.tile(x[d - new], times) if free(x[d - new]) else op.fixed(n)
                 for d, (n, times) in enumerate(zip(shape, repeats, strict=True)))


@register_rule("aten::repeat_interleave")
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


@register_rule("aten::constant_pad_nd")
def constant_pad_nd(op, x, pad, value=0):
    """Adds constants at the ends of dimensions."""
    return padded(op, x, pad)


@register_rule("aten::pad", "aten::_pad_enum")
def pad(op, x, pad, mode="constant", value=None):
    """Constants, or the dimension's own indices: reflected, repeated at the ends, or around in a circle."""
    names = {0: "reflect", 1: "replicate", 2: "circular", 3: "constant"}
    mode = names.get(mode, mode)
    return padded(op, x, pad, None if mode == "constant" else {"replicate": "edge", "circular": "wrap"}.get(mode, mode))


def padded(op, x: Operand, pad, mode: Any = None) -> Vectors:
    """Pads from the last dimension on; negative amounts crop. Constants around units may go like units: they are
    fresh ones. A padded position is a position."""
    out = list(x.vectors)
    for k, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        d = len(x) - 1 - k
        v = x[d][max(-before, 0):len(x[d]) - max(-after, 0)]
        before, after = max(before, 0), max(after, 0)
        if not free(v):
            out[d] = op.fixed(len(v) + before + after) if before or after else v
        elif mode is None:
            out[d] = np.concatenate([op.fresh(before), v, op.fresh(after)])
        else:
            out[d] = np.pad(v, (before, after), mode=mode)
    return tuple(out)


@register_rule("aten::reflection_pad1d", "aten::reflection_pad2d", "aten::reflection_pad3d", "aten::replication_pad1d",
               "aten::replication_pad2d", "aten::replication_pad3d", "aten::_pad_circular")
def pad_with_own(op, x, pad):
    """The single modes of `pad`."""
    mode = "reflect" if "reflection" in op.name else "edge" if "replication" in op.name else "wrap"
    return padded(op, x, pad, mode)


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
