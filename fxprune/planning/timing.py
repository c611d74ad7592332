"""A plan within a time: what is asked of whom, and what came of it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import nn

from fxprune.errors import BudgetError, InputError
from fxprune.planning.budget import Budget
from fxprune.planning.latency_budget import cut_to_time
from fxprune.planning.roles import Roles
from fxprune.planning.stairs import Bound, Prices

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

# The share of what was asked within which a result must be.
TOLERANCE = 0.03
# What may bound a plan besides its time, and what may not.
COUNTS, OTHERS = ("macs", "params"), ("channels", "threshold", "widths")


class PriceList(Protocol):
    """What a latency table is to the planner.

    Attributes:
        step: the multiple that widths should be of.
        digest: of everything in it.
        seconds: of the whole model.
        about: the target, as JSON holds it.
    """

    @property
    def step(self) -> int: ...

    @property
    def digest(self) -> str: ...

    @property
    def seconds(self) -> float: ...

    @property
    def about(self) -> Mapping[str, Any]: ...

    def priced(self, coupling: "Coupling", model: nn.Module, check: bool = True) -> Prices:
        """What widths cost."""
        ...


@dataclass(frozen=True)
class LayerTiming:
    """One layer: seconds before, predicted after, and measured after (None where that was not measured)."""

    name: str
    before: float
    predicted: float
    measured: float | None = None


@dataclass(frozen=True)
class Timing:
    """What became of a latency budget. Seconds.

    Args:
        asked: the time that was asked for.
        predicted: what the table said of the result, corrected by what was measured on the way.
        measured: the result's median, measured in turn with the original.
        spread: its quartiles.
        original: the original's median in the same rounds.
        forecast: what the table alone said of the first plan, over what that one took.
        attempts: how many plans were carried out and measured.
        target: in words.
        table: the table's digest.
        layers: time by layer.
        dead: group name -> channels that stay because their removal would save nothing.

    >>> print(Timing(0.012, 0.0119, 0.0118, (0.0117, 0.012), 0.024, 0.98, 1, "eager on cpu", "sha256:…"))
    11.8 ms (11.7 – 12) measured, 11.9 ms predicted, 12 ms asked; 24 ms before (eager on cpu; attempts: 1)
    """

    asked: float
    predicted: float
    measured: float
    spread: tuple[float, float]
    original: float
    forecast: float
    attempts: int
    target: str
    table: str
    layers: tuple[LayerTiming, ...] = ()
    dead: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        low, high = self.spread
        measured, predicted, asked, before = (f"{1000 * seconds:.3g} ms" for seconds in
                                              (self.measured, self.predicted, self.asked, self.original))
        return (f"{measured} ({1000 * low:.3g} – {1000 * high:.3g}) measured, {predicted} predicted, {asked} asked; "
                f"{before} before ({self.target}; attempts: {self.attempts})")


@dataclass(frozen=True, eq=False)
class TimeLimit:
    """What is asked of a plan that is drawn by the clock.

    Args:
        table: what widths cost.
        counts: ``macs`` and ``params`` that bound it besides, as fractions kept.
        check: refuse a table of another model or machine.
        correction: how much slower models are than the table says.
    """

    table: PriceList
    counts: Mapping[str, float]
    check: bool = True
    correction: float = 1.0

    @classmethod
    def of(cls, targets: Mapping[str, Any], table: PriceList | None, check: bool, correction: float
           ) -> "TimeLimit | None":
        """The limit that a call asks for, or None where it asks for no time.

        Raises:
            BudgetError: a budget that cannot stand beside a time.
            InputError: no table, or no such correction.
        """
        if targets.get("latency") is None and targets.get("latency_ms") is None:
            return None
        check_beside(targets)
        if table is None:
            raise InputError("latency= needs a table of what widths cost: write table=fxprune.latency_table(coupling, "
                             "model, fxprune.Target(threads=1))")
        number = isinstance(correction, Real) and not isinstance(correction, bool)
        if not number or not 0 < correction < float("inf"):
            raise InputError(f"correction must be a number above zero, got {correction!r}; leave it out")
        counts = {kind: value for kind in COUNTS if (value := targets.get(kind)) is not None}
        return cls(table, counts, check, float(correction))

    def cut(self, budget: Budget, coupling: "Coupling", model: nn.Module, scores: Mapping[str, np.ndarray],
            shapes: Mapping[str, Hashable], roles: Roles) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
        """The kept channels of every group in ``scores``, and what a plan records of how they were found.

        Args:
            budget: of kind ``"latency"`` or ``"latency_ms"``.
            coupling: has the groups and their costs.
            model: is run where the table lacks a layer.
            scores: one voted score per channel.
            shapes: what groups of like shape have in common.
            roles: which groups get one width.

        Raises:
            BudgetError: the time cannot be reached, or contradicts a count.
        """
        prices = roles.prices(self.table.priced(coupling, model, self.check))
        asked = self.asked(budget) / self.correction
        bounds = [_bound(coupling, kind, fraction, roles) for kind, fraction in self.counts.items()]
        problem = (budget, list(roles.groups), roles.sizes, roles.scores(scores, budget), bounds, roles.shapes(shapes),
                   roles.copies)
        found = cut_to_time(asked, prices, *problem)
        if bounds and found.seconds < (1 - TOLERANCE) * asked:
            # With all of the time that there is: what the counts alone leave.
            alone = cut_to_time(2 * prices(roles.widths), prices, *problem).seconds
            if alone < (1 - TOLERANCE) * asked:
                raise BudgetError(self._contradiction(budget, alone, asked))
        dead = {name: count for role, count in found.dead.items() for name in roles.groups[role]}
        return roles.kept(found.kept, scores), {"latency": {
            "target": dict(self.table.about), "table": self.table.digest, "correction": self.correction,
            "predicted_ms": 1000 * self.correction * found.seconds, "dead": dead}}

    def asked(self, budget: Budget) -> float:
        """Seconds."""
        value = float(budget.value)
        return value * self.table.seconds if budget.kind == "latency" else value / 1000

    def _contradiction(self, budget: Budget, seconds: float, asked: float) -> str:
        said = " and ".join(f"{kind}={value:g}" for kind, value in self.counts.items())
        return (f"{budget.kind}={float(budget.value):g} and {said} contradict each other: {said} alone leaves "
                f"{1000 * self.correction * seconds:.4g} ms, not the {1000 * self.correction * asked:.4g} ms that are "
                f"asked; write latency={self.correction * seconds / self.table.seconds:.3g}, or drop one of them")


def check_beside(targets: Mapping[str, Any]) -> None:
    """What is asked besides a time can be asked besides it.

    Raises:
        BudgetError: it is another budget, or makes no sense.
    """
    stray = next((name for name in OTHERS if targets.get(name) is not None
                  and not (name == "channels" and isinstance(targets[name], Mapping))), None)
    if stray:
        raise BudgetError(f"latency= may have macs=, params= and channels= by pattern beside it, got {stray}=; drop "
                          "one of them")
    for kind in COUNTS:
        if targets.get(kind) is not None:
            _fraction(kind, targets[kind])


def _fraction(kind: str, value: float) -> Fraction:
    budget = Budget.of(macs=value) if kind == "macs" else Budget.of(params=value)
    return budget.value


def _bound(coupling: "Coupling", kind: str, fraction: float, roles: Roles) -> Bound:
    exact = _fraction(kind, fraction)
    count = roles.count(getattr(coupling.costs, kind))
    return Bound(count, count(roles.widths) * exact.numerator // exact.denominator)
