"""The rows of the CIFAR-10 experiment: what is penalised, how the vote is taken, and how much is cut.

All but the baseline start from the same trained network and get the same number of epochs: with a penalty, then, cut,
without one. One-shot rows fine-tune for the epochs of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import fxprune

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


class SparseLearning:
    """Group sparse learning of DepGraph (Fang et al. 2023): every coupled slice decays, weak channels fastest.

    gradient += reg · g_k · w with g_k = 2^{4 (I_max - I_k) / (I_max - I_min)}, I_k the norm of channel k over all of
    its group's weights, each weight's norms divided by their mean. As a loss term: ½ reg Σ g_k ‖w_k‖², g held constant.
    """

    def __init__(self, coupling: fxprune.Coupling, strength: float = 5e-4):
        self.coupling, self.strength = coupling, strength

    def __call__(self, model: nn.Module) -> Tensor:
        parameters = dict(model.named_parameters())
        terms = [self._group(group, parameters) for group in self.coupling.prunable.values()]
        return 0.5 * self.strength * torch.stack(terms).sum()

    def _group(self, group: fxprune.CouplingGroup, parameters: dict[str, nn.Parameter]) -> Tensor:
        squares = []
        for member in group.members:
            if member.name not in parameters or member.name.endswith("bias"):
                continue
            index = torch.as_tensor(member.index)
            rows = parameters[member.name].movedim(member.dim, 0)[index].reshape(len(index), -1).square().sum(1)
            squares.append(torch.zeros(group.size, device=rows.device)
                           .index_add(0, torch.as_tensor(member.channel, device=rows.device), rows))
        with torch.no_grad():
            importance = torch.stack([s / s.mean().clamp_min(1e-12) for s in squares]).sum(0).sqrt()
            spread = (importance.max() - importance.min()).clamp_min(1e-12)
            weight = 2 ** (4 * (importance.max() - importance) / spread)
        return (weight * torch.stack(squares).sum(0)).sum()
