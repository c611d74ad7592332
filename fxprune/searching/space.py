"""What a search chooses from: a share of every unit, and how what stays is chosen and made up for.

A unit is one group, all groups of a stage, or all groups of a role. A trial draws a share for each unit. The shares say
how units stand to one another; how much is kept in all is the budget's: widths are ⌈t · share · n⌉, with the greatest
t that fits, found by bisection, since costs only grow with t. So every trial keeps the budget, and none is wasted.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from fxprune.coupling.coupling import Coupling
from fxprune.errors import BudgetError
from fxprune.ir.groups import CouplingGroup
from fxprune.planning.budget import Budget, widest
from fxprune.planning.roles import Roles

UNITS = ("group", "stage", "role")
# Bisections of the common factor: its relative error is 2^-40.
HALVINGS = 40


@dataclass(frozen=True)
class Space:
    """What trials may differ in.

    Args:
        units: unit -> its groups.
        least: the smallest share that is drawn.
        criteria, votes, recoveries: what is tried of each; those with one choice are no choice.
        by: what a unit is.
    """

    units: Mapping[str, tuple[str, ...]]
    least: float
    criteria: tuple[str, ...]
    votes: tuple[str, ...]
    recoveries: tuple[str | None, ...]
    by: str


def units_of(coupling: Coupling, free: Iterable[CouplingGroup], by: str) -> dict[str, tuple[str, ...]]:
    """Unit -> the groups that share one number."""
    names = [group.name for group in free]
    if by == "group":
        return {name: (name,) for name in names}
    if by == "role":
        roles = Roles.of(coupling.groups, True)
        return {role: found for role, found in roles.groups.items() if found[0] in names}
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(_stage(name), []).append(name)
    return {stage: tuple(found) for stage, found in units.items()}


def _stage(name: str) -> str:
    """The path up to its first number.

    >>> _stage("layer1.0.conv1"), _stage("model.layers.3.mlp.fc1"), _stage("stem.conv")
    ('layer1', 'model.layers.3', 'stem.conv')
    """
    parts = name.split(".")
    end = next((place for place, part in enumerate(parts, 1) if re.search(r"\d", part)), len(parts))
    return ".".join(parts[:end])


def widths_within(budget: Budget | None, shares: Mapping[str, float], coupling: Coupling, frame: Budget
                  ) -> dict[str, int]:
    """The widths of the groups that have a share: the greatest in these proportions that fit.

    Args:
        budget: of MACs or parameters; None takes the shares as they are.
        shares: group name -> in (0, 1].
        coupling: has sizes and costs.
        frame: its ``round_to`` and ``min_channels``.

    Raises:
        BudgetError: it cannot be reached.
    """
    def widths(factor: float) -> dict[str, int]:
        bounds = {name: (Fraction(0), min(Fraction(1), Fraction(share * factor))) for name, share in shares.items()}
        within = replace(frame, bounds=bounds)
        return {name: widest(coupling.groups[name].size, within, name) for name in shares}

    if budget is None:
        return widths(1.0)
    count = getattr(coupling.costs, budget.kind)
    most = count(coupling.widths) * budget.value

    def fits(factor: float) -> bool:
        found = widths(factor)
        return bool(count(np.array([found.get(n, g.size) for n, g in coupling.groups.items()], np.int64)) <= most)

    low, high = 0.0, 1 / min(shares.values())
    if not fits(low):
        raise BudgetError(f"{budget.kind}={float(budget.value):g} cannot be reached by the groups of this search; ask "
                          "for more, or lower min_channels or round_to")
    if fits(high):
        return widths(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return widths(low)
