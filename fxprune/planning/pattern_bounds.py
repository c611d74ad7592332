"""``channels={"layer1.*": 0.8, "layer4.*": (0.3, 0.6)}``: what groups keep, by patterns over the names of their layers.

Alone, a number says what each group keeps, ⌈f·n⌉ of its channels, and groups that no pattern names stay whole. Beside a
budget it is a bound: at most so much, as everywhere; a pair is the least and the most. Of several patterns that match a
group, the last one counts.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from fxprune.errors import BudgetError
from fxprune.ir.groups import CouplingGroup
from fxprune.planning.budget import Bounds, Budget
from fxprune.planning.selection import named_groups


def bounds_of(channels: Mapping[str, Any], groups: Mapping[str, CouplingGroup], alone: bool) -> dict[str, Bounds]:
    """Group name -> the least and the most of it that is kept, as exact fractions.

    Args:
        channels: pattern or group name -> a fraction, or a pair of them.
        groups: the coupling's.
        alone: no other budget stands beside it, so that there is nothing between a least and a most to decide.

    Raises:
        BudgetError: no fractions.
        InputError: a pattern that matches nothing, or only frozen groups.
    """
    if not channels:
        raise BudgetError('channels must name at least one pattern, got {}; write channels={"layer1.*": 0.8}')
    found: dict[str, Bounds] = {}
    for pattern, value in channels.items():
        bounds = _bounds(pattern, value, alone)
        found |= {name: bounds for name in sorted(named_groups(groups, pattern)) if not groups[name].frozen}
    return found


def _bounds(pattern: str, value: Any, alone: bool) -> Bounds:
    if not isinstance(value, tuple | list):
        return Fraction(0), _fraction(pattern, value)
    if alone or len(value) != 2:
        what = "a fraction" if alone else "a fraction, or a pair of the least and the most"
        hint = "; a pair bounds a budget: write macs=0.5 as well" if alone else ""
        raise BudgetError(f"channels[{pattern!r}] must be {what}, got {value!r}{hint}")
    least, most = (_fraction(pattern, one) for one in value)
    if least > most:
        raise BudgetError(f"channels[{pattern!r}] must be the least and the most that is kept, got {value!r}; write "
                          f"({float(most):g}, {float(least):g})")
    return least, most


def _fraction(pattern: str, value: Any) -> Fraction:
    try:
        return Budget.of(channels=value).value
    except BudgetError as error:
        raise BudgetError(str(error).replace("channels", f"channels[{pattern!r}]", 1)) from None
