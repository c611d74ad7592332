"""Windows over positions: pooling, patches and their reverse. The dims that windows slide over are frozen."""

from collections.abc import Sequence

import numpy as np

from fxprune.rules.movement import blocks
from fxprune.rules.operands import Vectors, freeze_dims, nth, operands
from fxprune.rules.registry import Operand, register_rule

WINDOW = "a window slides over it"


def over_positions(op, x: Operand, dims: Sequence[int], why: str = WINDOW) -> Vectors:
    """These dims become positions of the output's size; the others are handed on."""
    held = freeze_dims(op, x, dims, why)
    return tuple(op.fixed(op.shapes[0][d]) if d in dims else v for d, v in enumerate(held))


WINDOWED = "avg_pool{}d max_pool{}d max_pool{}d_with_indices".split()
ADAPTIVE = "adaptive_avg_pool{}d adaptive_max_pool{}d".split()


@register_rule(*(f"aten::{name.format(rank)}" for name in WINDOWED for rank in (1, 2, 3)))
def pool(op, x, kernel_size, stride=None, padding=0, *args, **kwargs):
    """One output, or also the positions of the maxima. A window of one index leaves its dimension alone."""
    rank = int(op.name.partition("pool")[2][0])
    stride = stride if stride is not None and stride != [] else kernel_size
    out = over_positions(op, x, [len(x) - rank + k for k in range(rank)
                                 if not nth(kernel_size, k) == nth(stride, k) == 1 or nth(padding, k) != 0])
    return out if len(op.shapes) == 1 else [out, out]


@register_rule(*(f"aten::{name.format(rank)}" for name in ADAPTIVE for rank in (1, 2, 3)),
               *(f"aten::{name}{rank}d" for name in ("_adaptive_avg_pool", "fractional_max_pool") for rank in (2, 3)))
def adaptive_pool(op, x, *args, **kwargs):
    """Windows that are as long as the output needs; fractional ones are drawn per channel, from given numbers."""
    for samples in operands(args, kwargs):
        op.tie(x[0], samples[0])
        op.tie(x[1], samples[1])
    rank = int(op.name.partition("pool")[2][0])
    out = over_positions(op, x, range(len(x) - rank, len(x)))
    return out if len(op.shapes) == 1 else [out, out]


@register_rule("aten::max_unpool2d", "aten::max_unpool3d")
def max_unpool(op, x, indices, *args, **kwargs):
    """Puts maxima back to their positions."""
    rank = int(op.name[-2])
    for a, b in zip(x.vectors[:-rank], indices.vectors[:-rank], strict=True):
        op.tie(a, b)
    return over_positions(op, x, range(len(x) - rank, len(x)))


@register_rule("aten::im2col")
def im2col(op, x, *args, **kwargs):
    """``[B, C, H, W] -> [B, C·k², L]``: every channel once per position of the kernel."""
    d = len(x) - 3
    freeze_dims(op, x, [d + 1, d + 2], WINDOW)
    channels, length = op.shapes[0][-2:]
    return (*x.vectors[:d], np.repeat(x[d], channels // len(x[d])), op.fixed(length))


@register_rule("aten::col2im")
def col2im(op, x, *args, **kwargs):
    """The reverse: blocks of k² rows."""
    d = len(x) - 2
    freeze_dims(op, x, [d + 1], WINDOW)
    channels, *places = op.shapes[0][-3:]
    return (*x.vectors[:d], blocks(op, x, d, len(x[d]) // channels), *(op.fixed(n) for n in places))
