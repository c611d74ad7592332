"""Padding: constants, or a dimension's own indices, at its ends; negative amounts crop."""

from typing import Any

import numpy as np

from fxprune.rules.literals import Call
from fxprune.rules.operands import Vectors, argument, free, with_argument
from fxprune.rules.registry import Operand, register_rule


def _amounts(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """Channels that padding adds may go like any others."""
    pads = list(argument(args, kwargs, 1, "pad", None))
    into, out = site.masks(args[0]), site.out_masks()[0]
    if all(mask.all() for mask in (*out, *into)):
        return target, args, kwargs
    for k in range(len(pads) // 2):
        dim = len(into) - 1 - k
        if out[dim].all() and into[dim].all():
            continue
        for side in (0, 1):
            amount = site.value(pads[2 * k + side])
            mask, sign = (out[dim], 1) if amount >= 0 else (into[dim], -1)
            edge = mask[:abs(amount)] if side == 0 else mask[len(mask) - abs(amount):]
            pads[2 * k + side] = sign * int(edge.sum())
    return target, *with_argument(args, kwargs, 1, "pad", tuple(pads))


@register_rule("aten::constant_pad_nd", literals=_amounts)
def constant_pad_nd(op, x, pad, value=0):
    """Adds constants at the ends of dimensions."""
    return padded(op, x, pad)


@register_rule("aten::pad", "aten::_pad_enum", literals=_amounts)
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
