"""The arguments of a penalty, checked: each message states the constraint, what was received, and what to write."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fxprune.errors import InputError
from fxprune.ir.groups import CouplingGroup
from fxprune.planning.selection import Wanted, named_groups
from fxprune.training.schedules import Schedule

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


def float_parameters(coupling: "Coupling") -> frozenset[str]:
    """The parameters that the graph uses and that hold floating numbers."""
    floating = {name for name, _, dtype in coupling.signature.entries if "float" in dtype or "complex" in dtype}
    return frozenset(name for name in coupling.costs.params_names if name in floating)


def check_coupling(coupling: Any) -> None:
    if not all(hasattr(coupling, name) for name in ("groups", "signature", "costs")):
        raise InputError(f"coupling must be what fxprune.analyze returns, got {type(coupling).__name__}; write "
                         "DWGL(fxprune.analyze(model, example_inputs))")


def number(name: str, value: Any, example: str, positive: bool = False) -> float:
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < 0 or (positive and value == 0):
        bound = "> 0" if positive else ">= 0"
        raise InputError(f"{name} must be a finite number {bound}, got {value!r}; write {example}")
    return float(value)


def ends(direction: object) -> tuple[float, float]:
    example = "direction=(1.0, 4.0)"
    if not isinstance(direction, Sequence) or len(direction) != 2:
        raise InputError(f"direction must be two numbers, of the first and the last channel, got {direction!r}; write "
                         f"{example}")
    low, high = (number("each end of direction", end, example) for end in direction)
    if low > high:
        raise InputError(f"direction must not decrease, because channels are ordered most important first, got "
                         f"{direction!r}; write direction={(high, low)}")
    return low, high


def checked_schedule(schedule: Any) -> Schedule:
    if isinstance(schedule, type) or not all(callable(getattr(schedule, name, None)) for name in ("start", "advance")):
        raise InputError(f"schedule must be Constant(), WarmUp(steps=…), Ramp(until=…), or an object with start and "
                         f"advance, got {schedule!r}; write schedule=WarmUp(steps=1000)")
    checked: Schedule = schedule
    return checked


def selected(groups: Mapping[str, CouplingGroup], wanted: Wanted) -> dict[str, CouplingGroup]:
    chosen = set(groups) if isinstance(wanted, str) and wanted == "auto" else named_groups(groups, wanted)
    free = {name: group for name, group in groups.items() if group.frozen is None and name in chosen}
    if not free:
        raise InputError("the coupling must have at least one group that may be pruned, but all are frozen; "
                         "print(coupling.report()) shows why")
    return free
