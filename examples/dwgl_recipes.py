"""The rows of the CIFAR-10 experiment: what is penalised, how the vote is taken, and how much is cut.

All but the baseline start from the same trained network and get the same number of epochs: of the press, which is
without a penalty where the row has none, and then, cut, of the final phase, which is the same for all.
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
        guided: in place of a strength, go towards the budget (`DWGL.towards`) over the epochs of the press.
        vote, criterion: how the plan is drawn.
        budget: ``"threshold"`` (what the votes give up, whatever that is), ``"paper"`` (its fraction of MACs), or None.
        family: more fractions of MACs, nested, each fine-tuned.
    """

    penalty: str | None = None
    order: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    ramp: bool = False
    guided: bool = False
    vote: str = "intersection"
    criterion: str = "l2"
    budget: str | None = None
    family: tuple[float, ...] = ()


DIRECTED = Recipe("dwgl", "l2", (("direction", (0.0, 8.0)), ("power", 2.0), ("include_scale", True)))
GUIDED = Recipe("dwgl", "l2", (("direction", (0.0, 40 / 3)), ("power", 4.0)), guided=True, budget="paper")
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
    # What one press is compared by: the same way to the same budget, by coefficients that rise with the index, and by
    # ones that are alike but for the first channel, which stays (0, then 0.97 and more).
    "directed": GUIDED,
    "undirected": replace(GUIDED, options=(("direction", (0.0, 1.0)), ("power", 0.01))),
    "nested": replace(DIRECTED, ramp=True, family=(0.75, 0.5, 0.25)),
}
