"""A press that needs no tuning: how far it is to the target, over the steps that are left.

A block of norm ‖W_b‖ that shrinks by d · c_b reaches zero at d = ‖W_b‖ / c_b. A channel is given up once its last voter
is there; so the present norms say at which distance d each channel goes, and the cost model which is the shortest d at
which the votes meet a target. With R updates left, each shrinks its blocks by

    (d / R) · c_b

What the task has pulled back in between is in the next d, so that no strength has to be found: against a constant pull
g the rate only grows as g · ln(N / R), and what is left after the last update is little, and set to zero. Learning
rates, optimizers and the scale of the weights do not enter. *Our addition*; the law is that of a vehicle that divides
the way that is left by the time that is left.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fxprune.errors import BudgetError, InputError
from fxprune.ir.costs import Costs
from fxprune.training.schedules import Measure, Progress

# Of the updates that are left, the share after which the distance is measured again.
SHARE = 20


@dataclass(frozen=True)
class Towards:
    """Ends at a target after so many updates: the length of each is the distance left over the updates left.

    From then on the channels that all voters have given up are held at zero, and nothing else is pressed.

    Args:
        until: the fraction of ``cost`` to be kept, in (0, 1).
        steps: the updates that are set aside for it, at least 10.
        cost: ``"macs"`` or ``"params"``.
    """

    until: float
    steps: int = 1000
    cost: str = "macs"

    def __post_init__(self) -> None:
        number = isinstance(self.until, int | float | np.number) and not isinstance(self.until, bool)
        if not number or not 0 < self.until < 1:
            raise BudgetError(f"{self.cost} must be the fraction to be kept, in (0, 1), got {self.until!r}; write "
                              f"DWGL.towards(coupling, {self.cost}=0.5, steps=2000)")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 10:
            raise InputError(f"steps must be a number of updates >= 10, got {self.steps!r}; set aside a part of the "
                             "training: steps=len(loader) * epochs // 2")

    def start(self) -> Progress:
        return Progress(factor=0.0, length=0.0)

    def advance(self, now: Progress, measure: Measure) -> Progress:
        steps = now.steps + 1
        if now.released or steps < now.due:
            return replace(now, steps=steps)
        kept, distance = measure.distance(self.until, self.cost)
        left = self.steps - steps
        if left <= 0 or kept <= self.until:
            return Progress(steps, 0.0, kept, 0.0, steps, True)
        length = distance / left
        return Progress(steps, length, kept, length, steps + max(1, left // SHARE))


def remaining(times: Mapping[str, np.ndarray], costs: Costs, widths: np.ndarray, until: float, cost: str
              ) -> tuple[float, float]:
    """The fraction of the cost that the votes keep now, and the distance at which they keep ``until``.

    Args:
        times: group name -> float64 [channels], the distance at which each is given up; 0 where it is, ∞ where never.
        costs, widths: the coupling's.
        until, cost: the target.

    >>> from fxprune.ir.costs import Count
    >>> one = Count(np.array([9]), np.array([[1]]), np.array([1, 0]), np.array([1]), np.array([0]), np.array([1]))
    >>> times = {"conv": np.array([np.inf, 2.0, 0.0, 0.5])}
    >>> remaining(times, Costs(("conv",), one, one), np.array([4]), 0.25, "macs")
    (0.75, 2.0)
    """
    count, places = getattr(costs, cost), {name: i for i, name in enumerate(costs.groups)}
    goes = {places[name]: np.sort(row) for name, row in times.items()}
    whole = max(count(widths), 1)

    def kept(distance: float) -> float:
        left = widths.copy()
        for place, row in goes.items():
            left[place] = max(1, len(row) - int(np.searchsorted(row, distance, side="right")))
        return float(count(left) / whole)

    stops = np.unique(np.concatenate([np.zeros(1), *goes.values()]))
    stops = stops[np.isfinite(stops)]
    low, high = 0, len(stops) - 1
    if kept(stops[high]) > until:
        return kept(0.0), math.inf
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if kept(stops[middle]) <= until else (middle + 1, high)
    return kept(0.0), float(stops[low])


def check_reachable(groups: Mapping[str, object], costs: Costs, widths: np.ndarray, until: float, cost: str) -> None:
    """
    Raises:
        BudgetError: with one channel left in each of these groups, more than ``until`` is left of the cost.
    """
    count = getattr(costs, cost)
    least = np.array([1 if name in groups else width for name, width in zip(costs.groups, widths, strict=True)])
    share = count(least) / max(count(widths), 1)
    if share > until:
        raise BudgetError(f"{cost}={until:g} cannot be reached: with one channel left in each of {len(groups)} groups, "
                          f"{share:.4f} of the {cost} is left; ask for more than that, or name more groups=")
