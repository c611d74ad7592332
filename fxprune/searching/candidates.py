"""Plans of a search, and the modules that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.coupling.analysis import Analysis
from fxprune.coupling.coupling import Coupling
from fxprune.ir.groups import CouplingGroup
from fxprune.passes import analysis_of, carry_out
from fxprune.planning import GroupPlan, Plan
from fxprune.planning.batches import Data
from fxprune.planning.budget import Budget
from fxprune.planning.criteria import resolve
from fxprune.planning.draw import plan as draw
from fxprune.planning.roles import Roles
from fxprune.planning.scoring import raw_scores
from fxprune.planning.selection import Ignored, Wanted, select
from fxprune.rewrite.folding import Folded
from fxprune.searching.space import Space, units_of, widths_within


@dataclass(frozen=True)
class Known:
    """A criterion whose scores are known already, called like the one that gave them."""

    name: str
    scores: Mapping[str, np.ndarray] = field(repr=False, compare=False)

    def __call__(self, group: CouplingGroup, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        return self.scores[group.name]


@dataclass(frozen=True)
class Choice:
    """What one trial chose.

    Args:
        shares: unit -> its share; None draws the plan that `fxprune.plan` draws at this budget.
        criterion, vote, recover: as `fxprune.plan` and `fxprune.apply` call them.
    """

    shares: Mapping[str, float] | None
    criterion: str
    vote: str
    recover: str | None


@dataclass(frozen=True, eq=False)
class Candidates:
    """All that a search needs to turn a choice into a plan, and a plan into a module.

    Args:
        model, analysis: the original.
        space: what is searched.
        budget: what every plan keeps, of MACs or parameters; None for none.
        frame: ``round_to`` and ``min_channels``.
        data: for recoveries that read some.
        criteria: by name, with their scores.
    """

    model: nn.Module
    analysis: Analysis
    space: Space
    budget: Budget | None
    frame: Budget
    data: Data | None
    criteria: Mapping[str, Known]

    @property
    def coupling(self) -> Coupling:
        return self.analysis.coupling

    def plan(self, choice: Choice, budget: Budget | None = None) -> Plan:
        """The plan of a choice, without scores; the same choice gives the same plan.

        Args:
            choice: its shares.
            budget: for a choice without shares; the search's where None.
        """
        asked = budget or self.budget
        options: dict[str, Any] = {"criterion": self.criteria[choice.criterion], "vote": choice.vote,
                                   "round_to": self.frame.round_to, "min_channels": self.frame.min_channels}
        if choice.shares is None:
            assert asked is not None, "a plan without shares needs a budget"
            options |= {asked.kind: asked.value, "uniform": self.space.by == "role",
                        "groups": [name for names in self.space.units.values() for name in names]}
        else:
            shares = {name: choice.shares[unit] for unit, names in self.space.units.items() for name in names}
            options |= {"widths": widths_within(self.budget, shares, self.coupling, self.frame)}
        drawn = draw(self.coupling, self.model, **options)
        groups = {name: GroupPlan(group.size, group.kept) for name, group in drawn.groups.items()}
        said: dict[str, Any] = {**drawn.options, "criterion": choice.criterion}
        return replace(drawn, groups=groups, options=said)

    def module(self, plan: Plan, recover: str | None) -> nn.Module:
        """What the plan makes of the model. It is proven where a plan is handed out, not in every trial."""
        return carry_out(Folded(self.model), self.analysis, plan, self.model, recover, self.data)

    def shares_of(self, plan: Plan) -> dict[str, float]:
        """Which shares come nearest to a plan: of each unit, what its groups keep on average."""
        return {unit: min(1.0, max(self.space.least, float(np.mean(
            [plan.widths.get(name, self.coupling.groups[name].size) / self.coupling.groups[name].size
             for name in names])))) for unit, names in self.space.units.items()}


def candidates_of(model: nn.Module, coupling: Coupling, budget: Budget | None, by: str, criteria: Sequence[str],
                  votes: Sequence[str], recoveries: Sequence[str | None], least: float, data: Data | None,
                  groups: Wanted, ignore: Ignored, round_to: int, min_channels: int) -> Candidates:
    """From the arguments of a call: the model is captured, and every criterion's scores are computed, once."""
    analysis = analysis_of(model, coupling.inputs, coupling.policy)
    coupling = analysis.coupling
    roles = Roles.of(coupling.groups, by == "role")
    free = roles.free(select(coupling.groups, model, groups, ignore), coupling.groups)
    listed = {group.name: group for group in free}
    known = {name: Known(name, raw_scores(coupling, model, listed, resolve(name), data)) for name in criteria}
    # What some criterion knows nothing of stays whole.
    free = roles.free([g for g in free if all(g.name in one.scores for one in known.values())], coupling.groups)
    space = Space(units_of(coupling, free, by), least, tuple(criteria), tuple(votes), tuple(recoveries), by)
    frame = Budget.of(macs=1, round_to=round_to, min_channels=min_channels)
    return Candidates(model, analysis, space, budget, frame, data, known)
