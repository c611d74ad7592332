"""Budgets of the first original, asked of a result of it."""

from fractions import Fraction
from numbers import Real
from typing import Any

from fxprune.coupling.coupling import Coupling
from fxprune.errors import BudgetError, InputError, unknown
from fxprune.planning.budget import Budget
from fxprune.planning.cut_options import CutOptions
from fxprune.results import Record

WORDS = ("model", "original")


def of_the_original(of: str, cut: CutOptions, earlier: Record | None, coupling: Coupling) -> CutOptions:
    """The same budget, as a fraction of the model at hand.

    Args:
        of: ``"original"``; anything else is refused.
        cut: what `fxprune.plan` is told.
        earlier: the model's record; None where it is the first original itself.
        coupling: its analysis.

    Raises:
        InputError: no such word.
        BudgetError: a budget that does not count MACs or parameters, or one that the model is below already.
    """
    if of not in WORDS:
        raise InputError(unknown("base of a budget", of, WORDS))
    other = next((name for name in ("channels", "threshold", "widths", "latency", "latency_ms")
                  if cut.get(name) is not None), None)
    if other:
        raise BudgetError(f'of="original" counts MACs or parameters, and {other}= counts neither; write macs=0.5, or '
                          f'leave of= out, so that {other}= is of the model itself')
    if earlier is None:
        return cut
    cut = _depth(cut, (earlier.overall or earlier).coupling, coupling)
    if cut.get("depth") not in (None, "auto") and cut.get("macs") is None and cut.get("params") is None:
        return cut
    given: dict[str, Any] = {kind: cut[kind] for kind in ("macs", "params") if cut.get(kind) is not None}
    budget = Budget.of(**given or {"macs": 0.5})
    first = getattr((earlier.overall or earlier).before, budget.kind)
    now = getattr(coupling.costs, budget.kind)(coupling.widths)
    share = budget.value * Fraction(first, now)
    if share > 1:
        raise BudgetError(f"{budget.kind}={float(budget.value):g} of the first original is more than is left of it: "
                          f"the model has {now / first:.4f} of its {budget.kind}; ask for less than that")
    result: CutOptions = {**cut, budget.kind: share}  # type: ignore[misc]
    return result


def _depth(cut: CutOptions, first: Coupling, coupling: Coupling) -> CutOptions:
    """A fraction of the first original's branches, as one of those that are left."""
    depth = cut.get("depth")
    if not isinstance(depth, Real) or isinstance(depth, bool) or not 0 < depth <= 1 or not coupling.branches:
        return cut
    share = Fraction(str(depth))
    kept = -(-len(first.branches) * share.numerator // share.denominator)
    if kept > len(coupling.branches):
        raise BudgetError(f"depth={depth:g} of the first original's {len(first.branches)} branches is more than the "
                          f"{len(coupling.branches)} that are left; ask for less than that")
    return {**cut, "depth": Fraction(kept, len(coupling.branches))}
