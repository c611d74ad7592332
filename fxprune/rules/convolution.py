"""Convolutions: a weight ``[out, in / groups, *kernel]`` reads dim 1 of the input and produces dim 1 of the output
(transposed: ``[in, out / groups, *kernel]``).

Grouped convolutions need equal groups. Two cuts keep them equal: the same positions *within* every group, or *whole*
groups, with their input and output channels; the user's policy says which is tried first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fxprune.ir.masks import remaining_groups
from fxprune.ir.units import Vector
from fxprune.rules.literals import Call
from fxprune.rules.operands import Kept, Vectors, argument, cost, nth, with_argument
from fxprune.rules.registry import Operand, register_rule

KERNEL = "a position in the kernel"
POSITIONS = "a convolution slides over it"
GROUP = "the only channel of its group"


def convolve(op, x: Operand, weight: Operand, bias: Operand | None, groups: int, transposed: bool,
             stride=1, padding=0) -> Vectors:
    """All convolutions: ties, roles, cost and the output's vectors."""
    spatial = len(weight) - 2
    channels = len(x) - spatial - 1
    for vector in weight.vectors[2:]:
        op.freeze(vector, KERNEL)
    places = tuple(_place(op, x[channels + 1 + k], op.shapes[0][channels + 1 + k],
                          len(weight[2 + k]) == 1 and nth(stride, k) == 1 and nth(padding, k) in (0, "valid", "same"))
                   for k in range(spatial))
    produced = _tie(op, x[channels], weight, groups, transposed)
    if bias is not None:
        op.tie(produced, bias[0])
    visited = [op.fixed(n) for n in x.shape[channels + 1:]] if transposed else places
    cost(op, *x.vectors[:channels], *visited, *(op.fixed(n) for n in weight.shape[2:]), weight[0], weight[1])
    return (*x.vectors[:channels], produced, *places)


def _place(op, vector: Vector, n: int, pointwise: bool) -> Vector:
    """A dimension that the kernel slides over; with a kernel of length 1 every index is on its own."""
    if pointwise and len(vector) == n:
        return vector
    op.freeze(vector, POSITIONS)
    return op.fixed(n)


def _tie(op, x: Vector, weight: Operand, groups: int, transposed: bool) -> Vector:
    """Ties input and weight; gives the produced channels."""
    outer, inner = weight[0], weight[1]
    made, read = (inner, outer) if transposed else (outer, inner)
    op.produces(made)
    op.consumes(read)
    if groups == 1:
        op.tie(x, read)
        return made
    if _cut(op, len(outer) // groups, len(inner)) == "within":
        return _within(op, x, outer, inner, groups, transposed)
    return _whole(op, x, outer, inner, groups, transposed)


def _cut(op, per_outer: int, per_inner: int) -> str:
    """``"within"`` or ``"whole"``: the policy's first, but whole groups where a group has a single channel."""
    single = per_outer == 1 or per_inner == 1
    if per_outer == per_inner == 1:
        return "whole"
    order = ["whole", "within"] if single or op.policy.grouped == "whole" else ["within", "whole"]
    return order[op.choose(2)]


def _within(op, x: Vector, outer: Vector, inner: Vector, groups: int, transposed: bool) -> Vector:
    per = outer[:len(outer) // groups]
    for vector in (per, inner):
        if len(vector) == 1:
            op.freeze(vector, GROUP)
    op.hinge(np.concatenate([per, inner]))
    op.tie(np.tile(per, groups), outer)
    op.tie(np.tile(inner, groups) if not transposed else np.tile(per, groups), x)
    return np.tile(inner if transposed else per, groups)


def _whole(op, x: Vector, outer: Vector, inner: Vector, groups: int, transposed: bool) -> Vector:
    size, read = len(outer) // groups, len(x) // groups
    whole = outer[::size] if size > 1 else outer
    if size > 1 or len(inner) > 1:
        op.hinge(whole)
    op.freeze(inner, "whole groups are removed")
    op.tie(_repeated(whole, size), outer)
    op.tie(_repeated(whole, read), x)
    return _repeated(whole, len(inner) if transposed else size)


def _repeated(vector: Vector, times: int) -> Vector:
    """Itself where it stands once, as in a depthwise convolution: a vector as a whole is closed faster."""
    return vector if times == 1 else np.repeat(vector, times)


def _computed(x: Operand, weight: Operand, *rest: object, **kwargs: object) -> bool:
    """Whether the weight is computed, so that its removed slices need not be zero."""
    return not weight.is_param


def _groups_left(at: int):
    """For a computed weight: the number of groups that are left, ``groups`` being the argument at this place."""

    def shrink(kept: Kept, args: Sequence[Any], kwargs: dict) -> tuple[Sequence[Any], dict]:
        groups = argument(args, kwargs, at, "groups", 1)
        channels = args[0].dim() - args[1].dim() + 1
        left = remaining_groups(kept(0, channels), groups)
        return (args, kwargs) if left == groups else with_argument(args, kwargs, at, "groups", left)

    return shrink


def _groups_written(at: int):
    """The same in the emitted graph, for any weight."""

    def literals(site: Any, target: Any, args: Any, kwargs: Any) -> Call:
        given = argument(args, kwargs, at, "groups", 1)
        x, weight = argument(args, kwargs, 0, "input", None), argument(args, kwargs, 1, "weight", None)
        groups, kept = site.value(given), site.masks(x)[1 - len(site.shape(weight))]
        if groups == 1 or kept.all():
            return target, args, kwargs
        return target, *with_argument(args, kwargs, at, "groups", site.size(given, remaining_groups(kept, groups)))

    return literals


@register_rule("aten::conv1d", "aten::conv2d", "aten::conv3d", mixes=_computed, shrink=_groups_left(6),
               literals=_groups_written(6))
def convolution(op, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """``groups`` is the seventh argument in all overloads."""
    return convolve(op, x, weight, bias, groups, False, stride, padding)


@register_rule("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d", mixes=_computed,
               shrink=_groups_left(6), literals=_groups_written(6))
def transposed_convolution(op, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The weight's dim 0 reads; positions are counted at the input."""
    return convolve(op, x, weight, bias, groups, True, stride, padding)


@register_rule("aten::convolution", "aten::_convolution", mixes=_computed, shrink=_groups_left(8),
               literals=_groups_written(8))
def general_convolution(op, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *rest):
    """What the above decompose to."""
    return convolve(op, x, weight, bias, groups, transposed, stride, padding)


@register_rule("aten::conv_tbc", mixes=_computed)
def conv_tbc(op, x, weight, bias, pad=0):
    """``[time, batch, in]`` with a weight ``[kernel, in, out]``."""
    op.freeze(x[0], POSITIONS)
    op.freeze(weight[0], KERNEL)
    op.tie(x[2], weight[1])
    op.tie(weight[2], bias[0])
    op.produces(weight[2])
    op.consumes(weight[1])
    time = op.fixed(op.shapes[0][0])
    cost(op, time, x[1], op.fixed(len(weight[0])), weight[1], weight[2])
    return (time, x[1], weight[2])
