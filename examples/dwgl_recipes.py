"""The rows of the CIFAR-10 experiment: what is penalised, how the vote is taken, and how much is cut.

All but the baseline start from the same trained network and get the same number of epochs: with a penalty, then, cut,
without one. One-shot rows fine-tune for the epochs of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

# "52.06 % compression" and "75.34 %" of Zhan et al. 2019, read as MACs: the fractions that are kept.
PAPER = {20: 0.4794, 56: 0.2466}


@dataclass(frozen=True)
class Recipe:
    """One row.

    Args:
        penalty: None, ``"dwgl"`` (proximal) or ``"sparse-learning"`` (a loss term).
        order: what the channels are ordered by first, or None.
        options: of `fxprune.DWGL`.
        ramp: raise the strength until the vote reaches the budget.
        vote, criterion: how the plan is drawn.
        budget: ``"threshold"`` (what the votes give up, whatever that is), ``"paper"`` (its fraction of MACs), or None.
        family: more fractions of MACs, nested, each fine-tuned.
    """

    penalty: str | None = None
    order: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    ramp: bool = False
    vote: str = "intersection"
    criterion: str = "l2"
    budget: str | None = None
    family: tuple[float, ...] = ()


DIRECTED = Recipe("dwgl", "l2", (("direction", (0.0, 8.0)), ("power", 2.0), ("include_scale", True)))
PLAIN = (("direction", (1.0, 1.0)), ("include_scale", True))

ROWS = {
    "baseline": Recipe(),
    # The same mean coefficient as DIRECTED: the mean of 8 · t² over [0, 1].
    "group-lasso": Recipe("dwgl", "l2", (("direction", (8 / 3, 8 / 3)), ("include_scale", True)), ramp=True,
                          budget="threshold"),
    "dwgl": replace(DIRECTED, ramp=True, budget="threshold"),
    "dwgl-paper": replace(DIRECTED, ramp=True, budget="paper"),
    "joint": Recipe("dwgl", "l2", (*PLAIN, ("joint", True)), ramp=True, vote="joint", budget="paper"),
    "l1": Recipe(vote="joint", criterion="l1", budget="paper"),
    "sparse-learning": Recipe("sparse-learning", vote="joint", budget="paper"),
    "nested": replace(DIRECTED, ramp=True, family=(0.75, 0.5, 0.25)),
}
