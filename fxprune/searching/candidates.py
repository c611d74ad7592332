"""Plans of a search, and the modules that they make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fxprune.capture.model_walk import signature_of
from fxprune.coupling.analysis import Analysis
from fxprune.coupling.coupling import Coupling
from fxprune.errors import BudgetError
from fxprune.ir.groups import CouplingGroup
from fxprune.passes import analysis_of, carry_out, redrawn
from fxprune.planning import GroupPlan, Plan
from fxprune.planning.batches import Data
from fxprune.planning.budget import Budget
from fxprune.planning.criteria import resolve
from fxprune.planning.draw import plan as draw
from fxprune.planning.plan_chain import chained
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
        if not self.space.units:
            raise BudgetError("the model's own Python fixes all that this search may cut; search on "
                              "fxprune.analyze(model, inputs), for form=\"graph\", which rewrites that")
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

    def carried_out(self, drawn: Callable[["Candidates"], Plan], recover: str | None) -> tuple[Plan, nn.Module]:
        """A plan, and what it makes of the model. Where the model's Python turns out to fix what the plan cuts, it is
        drawn again, as `fxprune.compress` draws it again, on candidates that know that.

        Args:
            drawn: draws the plan, of these candidates or of those.
            recover: the recovery of the module.
        """
        def made(analysis: Analysis) -> tuple[Plan, nn.Module]:
            now = self if analysis is self.analysis else self._on(analysis)
            plan = drawn(now)
            small = now.module(plan, recover)
            return (plan if now is self else self._said(plan, small)), small

        return redrawn(self.model, self.analysis, made)[1]

    def _on(self, analysis: Analysis) -> "Candidates":
        """The same search on a coupling of which more is frozen or tied. What the channels of a group are shared with
        must all be of the search; else it stays whole."""
        units = {(member.name, member.dim): unit for unit, names in self.space.units.items() for name in names
                 for member in self.coupling.groups[name].members}
        found: dict[str, list[str]] = {}
        for name, group in analysis.coupling.prunable.items():
            owners = [units.get((member.name, member.dim)) for member in group.members]
            if owners and None not in owners:
                found.setdefault(str(owners[0]), []).append(name)
        listed = {name: analysis.coupling.groups[name] for names in found.values() for name in names}
        criteria = {name: Known(name, raw_scores(analysis.coupling, self.model, listed, resolve(name), self.data))
                    for name in self.criteria}
        space = replace(self.space, units={unit: tuple(names) for unit, names in found.items()})
        return replace(self, analysis=analysis, space=space, criteria=criteria)

    def _said(self, plan: Plan, small: nn.Module) -> Plan:
        """A plan in the groups of the search, which all of its workers know."""
        groups, shared = self.coupling.groups, self.coupling.evidence.shared
        whole = {name: tuple(range(groups[name].size)) for names in self.space.units.values() for name in names}
        kept = chained(plan.keep, plan.signature, {}, signature_of(small), groups, shared)
        return Plan.build(groups, {**whole, **kept}, signature=plan.signature, inputs=plan.inputs, digest=plan.digest,
                          aliases=shared, mode=plan.mode, options=plan.options, policy=plan.policy)

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
