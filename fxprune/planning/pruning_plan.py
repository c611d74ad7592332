"""The plan: what is kept of a model. Data, not code; it is saved, reviewed, edited and applied again."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fxprune.coupling.permutable import held_in_order
from fxprune.errors import PlanError
from fxprune.ir.branches import Branch
from fxprune.ir.example_inputs import Inputs
from fxprune.ir.files import read_text, write_text
from fxprune.ir.frozen import freeze
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.methods import provided
from fxprune.ir.signature import Signature
from fxprune.ir.versions import installed
from fxprune.planning import document
from fxprune.planning.check import (
    REDRAW,
    check_branches,
    check_coupling,
    check_groups,
    check_indices,
    check_list,
    check_signature,
)
from fxprune.planning.composition import compose
from fxprune.planning.digest import digest_of
from fxprune.planning.group_plan import GroupPlan
from fxprune.planning.plan_chain import apart, chained, chained_branches
from fxprune.planning.reader import given, parse

if TYPE_CHECKING:
    import torch

    from fxprune.coupling.coupling import Coupling
    from fxprune.planning.criteria import Criterion


@dataclass(frozen=True)
class Plan:
    """What is kept of every parameter and buffer, and where that decision came from.

    Args:
        keep: name -> dimension -> kept indices in their new order, for exactly those parameters and buffers (all names
            of shared ones) that lose or reorder something.
        groups: group name -> size, kept channels and scores, for the groups that could be cut.
        inputs: the example inputs' specs.
        signature: the model's structure.
        digest: of the weights that the plan was drawn from.
        options: how it was drawn: ``budget``, ``criterion``, ``vote``, ``scope``, ``round_to``, …
        policy: how the coupling resolved splits (heads, groups), and which outputs it held.
        mode: ``"graph"`` or ``"module"``.
        versions: of fxprune and torch that drew it.
        branches: residual branches that go whole: name -> the parameters and buffers that go with each.
    """

    keep: Mapping[str, Mapping[int, tuple[int, ...]]]
    groups: Mapping[str, GroupPlan]
    inputs: Inputs
    signature: Signature
    digest: str
    options: Mapping[str, object]
    policy: Mapping[str, Any]
    mode: str
    versions: Mapping[str, str]
    branches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("keep", "groups", "options", "policy", "versions", "branches"):
            object.__setattr__(self, name, freeze(getattr(self, name)))

    @classmethod
    def build(cls, groups: Mapping[str, CouplingGroup], kept: Mapping[str, Iterable[int]], *, signature: Signature,
              inputs: Inputs, digest: str, aliases: Mapping[str, Sequence[str]], mode: str = "graph",
              scores: Mapping[str, Iterable[float]] | None = None, options: Mapping[str, object] | None = None,
              policy: Mapping[str, Any] | None = None, branches: Mapping[str, Sequence[str]] | None = None
              ) -> "Plan":
        """A plan from the kept channels, in their new order, of the groups that could be cut, and the branches that go.

        Raises:
            PlanError: channels that do not exist, are repeated or frozen.
        """
        chosen = {name: tuple(map(int, channels)) for name, channels in kept.items()}
        check_groups(chosen, groups)
        keep = compose(groups, chosen, signature, aliases)
        planned = {name: GroupPlan(groups[name].size, channels, tuple(map(float, (scores or {}).get(name, ()))))
                   for name, channels in chosen.items()}
        return cls(keep, planned, inputs, signature, digest, options or {}, policy or {}, mode,
                   {name: installed(name) for name in ("fxprune", "torch")},
                   {name: tuple(tensors) for name, tensors in (branches or {}).items()})

    @classmethod
    def from_widths(cls, coupling: "Coupling", model: "torch.nn.Module",
                    widths: "Mapping[str, int] | str | os.PathLike[str]", *, criterion: "str | Criterion | None" = None,
                    vote: str | None = None) -> "Plan":
        """The best channels of each group at widths of one's own; groups that are not named stay whole.

        ``Plan.from_widths(coupling, model, {"layer1.0.conv1": 32})``: the same as `fxprune.plan` with ``widths=``.

        Args:
            coupling: `fxprune.analyze` of this model.
            model: the model whose weights are scored.
            widths: by group name; or a plan file in which they were edited.
            criterion, vote: as for `fxprune.plan`; those of the file, or ``"l2"`` and ``"joint"``, where None.

        Raises:
            InputError: no such group, width or criterion.
            PlanError: the file is damaged, or of another model.
        """
        plan: Plan = provided(Plan, "from_widths")(coupling, model, widths, criterion, vote)
        return plan

    @property
    def widths(self) -> Mapping[str, int]:
        """Kept channels per group."""
        return {name: group.width for name, group in self.groups.items()}

    @property
    def channels(self) -> Mapping[str, tuple[int, ...]]:
        """The kept channels of each group, in their new order."""
        return {name: group.kept for name, group in self.groups.items()}

    def then(self, later: "Plan", coupling: "Coupling") -> "Plan":
        """This plan and one of its result, in one step: a plan of this plan's model.

        Args:
            later: drawn on what `fxprune.apply` made by this plan, trained since or not.
            coupling: `fxprune.analyze` of the model that this plan was drawn on.

        Raises:
            PlanError: ``later`` is of another model, or no one plan does what the two do.
        """
        kept = chained(self.keep, self.signature, later.keep, later.signature, coupling.groups,
                       coupling.evidence.shared)
        held = held_in_order(coupling, kept)
        if held:
            raise apart(f"the channels of group {held[0]!r} may be reordered in the earlier one's result only")
        names = [name for name, group in coupling.groups.items() if name in self.groups or name in kept]
        whole = {name: tuple(range(coupling.groups[name].size)) for name in names}
        scores = {name: group.scores for name, group in self.groups.items()}
        return Plan.build(coupling.groups, {**whole, **kept}, signature=self.signature, inputs=self.inputs,
                          digest=self.digest, aliases=coupling.evidence.shared, mode=self.mode, scores=scores,
                          options={"steps": (*_steps(self), *_steps(later))}, policy=self.policy,
                          branches=chained_branches(self.branches, later.branches, coupling.branches))

    def check(self, signature: Signature, groups: Mapping[str, CouplingGroup] | None = None,
              aliases: Mapping[str, Sequence[str]] | None = None, branches: Mapping[str, Branch] | None = None
              ) -> None:
        """The plan fits this model and, where its coupling's groups are given, breaks none of them.

        Args:
            signature: the model's.
            groups: all groups of its coupling.
            aliases: first name -> all names of its parameters and buffers, where some are shared.
            branches: the residual branches of its coupling.

        Raises:
            PlanError: what does not fit, and where.
        """
        check_signature(self.signature, signature)
        check_indices(self.keep, signature)
        check_branches(self.branches, signature, branches)
        for name, group in self.groups.items():
            check_list(f"plan.groups[{name!r}].kept", group.kept, group.size)
        if groups is None:
            return
        for name, group in self.groups.items():
            if name in groups and groups[name].size != group.size:
                raise PlanError(f"plan.groups[{name!r}]: the group must have {groups[name].size} channels, as in the "
                                f"model's coupling, got {group.size} (another policy, or another fxprune?); {REDRAW}")
        check_coupling(self.keep, self.channels, groups, signature, aliases or {})

    def check_weights(self, model: "torch.nn.Module") -> None:
        """The model holds, bit for bit, the weights that the plan was drawn from.

        Raises:
            PlanError: it does not.
        """
        digest = digest_of(model)
        if digest != self.digest:
            raise PlanError(f"the plan was drawn from other weights: it expects {self.digest[:19]}…, and the model has "
                            f"{digest[:19]}…; {REDRAW} on this model, or pass weights=\"any\" if the channels still "
                            "mean the same (a plan drawn on an ordered or trained copy would be wrong on the original)")

    def apply_to_optimizer(self, optimizer: "torch.optim.Optimizer", model: "torch.nn.Module",
                           small: "torch.nn.Module") -> "torch.optim.Optimizer":
        """A new optimizer over ``small``'s parameters, its momentum and moments sliced along this plan."""
        new: torch.optim.Optimizer = provided(Plan, "apply_to_optimizer")(self, optimizer, model, small)
        return new

    def to_dict(self) -> dict[str, Any]:
        """As a JSON document, of dictionaries, lists, strings and numbers."""
        return document.to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Plan":
        """From such a document.

        Raises:
            PlanError: what is wrong, and where.
        """
        return cls(**document.fields(given(data)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, whole or not at all."""
        write_text(path, document.render(self.to_dict()) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Plan":
        """Read what `save` wrote. The file is not trusted: everything in it is checked.

        Raises:
            PlanError: what is wrong, and where.
        """
        return cls(**document.fields(parse(read_text(path))))

    def __repr__(self) -> str:
        kept, size = (sum(getattr(g, f) for g in self.groups.values()) for f in ("width", "size"))
        depth = f", without {len(self.branches)} branches" if self.branches else ""
        return f"Plan({kept} of {size} channels kept in {len(self.groups)} groups, {len(self.keep)} tensors cut{depth})"

    def _repr_html_(self) -> str:
        return str(provided(Plan, "_repr_html_")(self))


def _steps(plan: Plan) -> tuple[Any, ...]:
    """How each of the plans was drawn that this one was made of."""
    steps: Any = plan.options.get("steps", (plan.options,))
    return tuple(steps)
