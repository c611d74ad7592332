"""Normalisations: the affine parameters are tied with the channels that they scale.

Where statistics are taken over channels (layer norm, group norm), those of the pruned model are over the kept channels
(``mixes``). Group norm needs equal groups, like a grouped convolution.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fxprune.ir.masks import remaining_groups
from fxprune.ir.units import Vector
from fxprune.rules.literals import Call, sizes
from fxprune.rules.operands import Kept, Vectors, argument, free, with_argument
from fxprune.rules.registry import Operand, register_rule


def per_channel(op, x: Operand, *params: Operand | None) -> None:
    """Tie one-dimensional parameters with dim 1."""
    for param in params:
        if param is not None:
            op.tie(x[1], param[0])


def _over_channels(x: Operand, *rest: object, **kwargs: object) -> bool:
    """Batch statistics mix only if dimensions other than dim 1 carry units (standardised weights)."""
    return any(free(v) for d, v in enumerate(x.vectors) if d != 1)


# The native ones are what exported programs hold; those of single backends (cudnn, miopen) never arrive.
BATCH_NORMS = ("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
               "_native_batch_norm_legit_functional")


@register_rule(*(f"aten::{name}" for name in BATCH_NORMS), mixes=_over_channels)
def batch_norm(op, x, weight=None, bias=None, running_mean=None, running_var=None, *args, **kwargs):
    """Per channel; `batch_norm` has one output, the native forms also the statistics."""
    params = [p for p in (weight, bias, running_mean, running_var) if isinstance(p, Operand)]
    per_channel(op, x, *params)
    return x.vectors if len(op.shapes) == 1 else _with_statistics(op, x)


def _with_statistics(op, x: Operand) -> list[Vectors]:
    """The output, then whatever has one entry per channel, then what has none."""
    made = not op.name.endswith("no_training")  # else they are left empty, whatever shape is announced
    rest = [tuple(x[1] if n == len(x[1]) and made else op.fixed(n) for n in shape) for shape in op.shapes[1:]]
    return [x.vectors, *rest]


@register_rule("aten::instance_norm", mixes=_over_channels)
def instance_norm(op, x, weight=None, bias=None, running_mean=None, running_var=None, *args, **kwargs):
    """Per channel and sample."""
    per_channel(op, x, weight, bias, running_mean, running_var)
    return x.vectors


def _shape_kept(kept: Kept, args: Sequence[Any], kwargs: dict) -> tuple[Sequence[Any], dict]:
    """The normalised shape, as far as it is kept."""
    return (args[0], [int(kept(0, d).sum()) for d in range(-len(args[1]), 0)], *args[2:]), kwargs


def _shape_written(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """The same in the emitted graph."""
    shape = argument(args, kwargs, 1, "normalized_shape", None)
    new = sizes(site, shape, site.lengths(args[0])[-len(shape):])
    return target, *with_argument(args, kwargs, 1, "normalized_shape", new)


@register_rule("aten::layer_norm", "aten::rms_norm", "aten::native_layer_norm", "aten::_fused_rms_norm", mixes=True,
               shrink=_shape_kept, literals=_shape_written)
def layer_norm(op, x, normalized_shape, weight=None, bias=None, *args, **kwargs):
    """Over the last dims; `rms_norm` has no bias, its fourth argument is eps."""
    k = len(normalized_shape)
    for param in (weight, bias):
        if isinstance(param, Operand):
            for own, vector in zip(param.vectors, x.vectors[-k:], strict=True):
                op.tie(vector, own)
    if len(op.shapes) == 1:
        return x.vectors
    statistics = (*x.vectors[:-k], *(op.fixed(1) for _ in range(k)))
    return [x.vectors, *(statistics for _ in op.shapes[1:])]


def _groups_left(kept: Kept, args: Sequence[Any], kwargs: dict) -> tuple[Sequence[Any], dict]:
    """The number of groups that are left: all of them, or as many as are kept whole."""
    return (args[0], remaining_groups(kept(0, 1), args[1]), *args[2:]), kwargs


def _groups_written(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
    """The same in the emitted graph."""
    given, kept = argument(args, kwargs, 1, "num_groups", None), site.masks(args[0])[1]
    if kept.all():
        return target, args, kwargs
    left = site.size(given, remaining_groups(kept, site.value(given)))
    return target, *with_argument(args, kwargs, 1, "num_groups", left)


@register_rule("aten::group_norm", mixes=True, shrink=_groups_left, literals=_groups_written)
def group_norm(op, x, num_groups, weight=None, bias=None, *args, **kwargs):
    """Over equal groups of channels: the same positions within each are kept, or whole groups are."""
    per_channel(op, x, weight, bias)
    return replaced_channels(x, _equal_groups(op, x[1], num_groups))


@register_rule("aten::native_group_norm", mixes=True)
def native_group_norm(op, x, weight, bias, n, c, hw, group, eps):
    """As `group_norm`, with means and deviations per group. Its sizes are arguments: only whole models of one group
    keep them, so that channels are frozen here unless there is one group."""
    per_channel(op, x, weight, bias)
    op.freeze(x[1], "native_group_norm takes the number of channels as an argument")
    return [x.vectors, *(tuple(op.fixed(k) for k in shape) for shape in op.shapes[1:])]


def replaced_channels(x: Operand, channels: Vector) -> Vectors:
    """The vectors of ``x`` with other channels in dim 1."""
    return (x[0], channels, *x.vectors[2:])


def _equal_groups(op, x: Vector, groups: int) -> Vector:
    size = len(x) // groups
    if groups == 1 or size == 1 or not free(x):
        return x
    order = ["within", "whole"] if op.policy.grouped == "within" else ["whole", "within"]
    if order[op.choose(2)] == "within":
        kept = x[:size]
        out = np.tile(kept, groups)
    else:
        kept = x[::size]
        out = np.repeat(kept, size)
    op.hinge(kept)
    op.tie(out, x)
    return out


@register_rule("aten::_weight_norm", "aten::_weight_norm_interface", mixes=True)
def weight_norm(op, v, g, dim=0):
    """``g · v / ‖v‖`` with the norm over all dims but one, to which ``g`` belongs."""
    d = dim % len(v)
    if len(g) == len(v):
        op.tie(v[d], g[d])
    else:
        op.tie(v[d], g[0]) if len(g) else None
    return v.vectors if len(op.shapes) == 1 else [v.vectors, g.vectors]


@register_rule("aten::norm_except_dim", mixes=True)
def norm_except_dim(op, v, pow=2, dim=0):
    """The norm over all dims but one."""
    if dim == -1:
        return ()
    return tuple(vector if d == dim else op.fixed(1) for d, vector in enumerate(v.vectors))
