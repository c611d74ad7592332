"""A family of plans from one trained network: each keeps a subset of what the one before keeps.

Every channel is scored once, and a smaller budget removes more from the same end of that ranking. With ordered channels
and DWGL the weak ones are those with high indices, so that what is kept of a group is (nearly) a prefix of its order:
`Nested.prefix` says how nearly.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tabulate import tabulate

from fxprune.errors import BudgetError, InputError
from fxprune.planning import Plan
from fxprune.planning.draw import plan

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


@dataclass(frozen=True, eq=False)
class Nested(Sequence[Plan]):
    """Plans, the widest first. A sequence.

    Args:
        plans: the plans.
        fractions: what each was asked to keep.
        budget: ``"macs"``, ``"params"`` or ``"channels"``.
    """

    plans: tuple[Plan, ...]
    fractions: tuple[float, ...]
    budget: str = "macs"

    def __getitem__(self, index: Any) -> Any:
        return self.plans[index]

    def __len__(self) -> int:
        return len(self.plans)

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.plans)

    def prefix(self, index: int) -> dict[str, float]:
        """Group name -> the fraction of its kept channels that lie among its first ``width`` channels; 1 is a prefix.

        Groups that are kept whole are left out.
        """
        groups = self.plans[index].groups
        return {name: float(np.mean(np.asarray(g.kept) < g.width)) for name, g in groups.items() if g.width < g.size}

    def report(self, format: str = "simple") -> str:
        """Per plan: channels kept, how many of them lie in the prefix, and the group that strays most."""
        rows = []
        for index, (fraction, plan_) in enumerate(zip(self.fractions, self.plans, strict=True)):
            cut = {name: g for name, g in plan_.groups.items() if g.width < g.size}
            inside = sum(int((np.asarray(g.kept) < g.width).sum()) for g in cut.values())
            total = sum(g.width for g in cut.values())
            worst = min(self.prefix(index).items(), key=lambda item: item[1], default=("", 1.0))
            rows.append([f"{fraction:g}", sum(g.width for g in plan_.groups.values()), len(cut),
                         f"{inside / max(total, 1):.1%}", f"{worst[0]} {worst[1]:.0%}" if worst[0] else ""])
        headers = (f"{self.budget} kept", "channels kept", "groups cut", "kept channels in the prefix", "strays most")
        return str(tabulate(rows, headers, tablefmt=format, disable_numparse=True))


def nested(coupling: "Coupling", model: torch.nn.Module, *, macs: Sequence[float] | None = None,
           params: Sequence[float] | None = None, channels: Sequence[float] | None = None,
           **options: Any) -> Nested:
    """Plans at decreasing budgets, each a subset of the one before.

    Args:
        coupling: `fxprune.analyze` of this model.
        model: the model whose weights are scored, ordered and trained with `DWGL` if what is kept should be a prefix.
        macs, params, channels: the fractions to keep, decreasing; one of them, (0.75, 0.5, 0.25) of the MACs where
            nothing is given.
        options: as for `fxprune.plan`: ``criterion``, ``vote``, ``scope``, ``round_to``, ``groups``, ….

    Raises:
        BudgetError: fractions that do not decrease, or cannot be reached.
        InputError: as `fxprune.plan`.

    >>> from fxprune import analyze
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> family = nested(analyze(net, torch.zeros(1, 3)), net, macs=[0.75, 0.5, 0.25])
    >>> [plan.groups["0"].width for plan in family]
    [6, 4, 2]
    >>> set(family[2].groups["0"].kept) < set(family[1].groups["0"].kept)
    True
    """
    given = {"macs": macs, "params": params, "channels": channels}
    given = {name: values for name, values in given.items() if values is not None} or {"macs": (0.75, 0.5, 0.25)}
    if len(given) > 1:
        raise BudgetError(f"exactly one of macs=, params= and channels= must be given, got {' and '.join(given)}; "
                          "write macs=[0.75, 0.5, 0.25]")
    (kind, values), = given.items()
    fractions = _fractions(kind, values)
    # `plan` would take these without a word, and the plans would no longer nest.
    stray = next((name for name in ("threshold", "widths") if name in options), None)
    if stray:
        raise InputError(f"nested takes a list of budgets, and {stray}= is not one; write macs=[0.75, 0.5, 0.25]")
    plans = tuple(plan(coupling, model, **{kind: f, **options}) for f in fractions)
    return Nested(plans, fractions, kind)


def _fractions(kind: str, values: object) -> tuple[float, ...]:
    example = f"{kind}=[0.75, 0.5, 0.25]"
    if not isinstance(values, Sequence) or isinstance(values, str | Mapping) or not values:
        raise BudgetError(f"{kind} must be a list of the fractions to keep, got {values!r}; write {example}")
    fractions = tuple(values)
    if any(not a > b for a, b in pairwise(fractions)):
        raise BudgetError(f"{kind} must decrease, so that each plan is a subset of the one before, got {list(values)}; "
                          f"write {kind}={sorted(set(values), reverse=True)}")
    return fractions
