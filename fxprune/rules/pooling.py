"""Windows over positions: pooling, patches and their reverse. The dims that windows slide over are frozen."""

import numpy as np

from fxprune.registry import Operand, register_rule
from fxprune.rules._shared import Vectors, freeze_dims
from fxprune.rules.movement import blocks

WINDOW = "a window slides over it"


def over_positions(op, x: Operand, rank: int, output: int = 0, why: str = WINDOW) -> Vectors:
    """The last ``rank`` dims become positions of the output's size; the others are handed on."""
    held = freeze_dims(op, x, range(len(x) - rank, len(x)), why)
    return (*held[:-rank], *(op.fixed(n) for n in op.shapes[output][-rank:]))


POOLS = """
avg_pool max_pool adaptive_avg_pool adaptive_max_pool
""".split()


@register_rule(*(f"aten::{name}{rank}d" for name in POOLS for rank in (1, 2, 3)),
               *(f"aten::max_pool{rank}d_with_indices" for rank in (1, 2, 3)),
               "aten::_adaptive_avg_pool2d", "aten::_adaptive_avg_pool3d", "aten::fractional_max_pool2d",
               "aten::fractional_max_pool3d", "aten::mkldnn_max_pool2d")
def pool(op, x, *args, **kwargs):
    """One output, or also the positions of the maxima."""
    rank = int(op.name.partition("d_with")[0].rstrip("d")[-1])
    outs = [over_positions(op, x, rank, k) for k in range(len(op.shapes))]
    return outs if len(outs) > 1 else outs[0]


@register_rule("aten::max_unpool2d", "aten::max_unpool3d")
def max_unpool(op, x, indices, *args, **kwargs):
    """Puts maxima back to their positions."""
    rank = int(op.name[-2])
    for a, b in zip(x.vectors[:-rank], indices.vectors[:-rank], strict=True):
        op.tie(a, b)
    return over_positions(op, x, rank)


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
