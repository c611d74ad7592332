"""Which residual branches go, and with which priority: a fraction of them, or as many as a budget takes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fxprune.capture.capturing import GRAPH
from fxprune.errors import BudgetError, InputError, UnsupportedError
from fxprune.ir.branches import Branch
from fxprune.ir.groups import CouplingGroup
from fxprune.planning.batches import Data
from fxprune.planning.branch_scores import COSINE, score_branches
from fxprune.planning.criteria.registry import described
from fxprune.planning.scopes import PRICES
from fxprune.planning.selection import Ignored, ignored_branches

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling
    from fxprune.planning.criteria.choice import Choice

AUTO = "auto"


@dataclass(frozen=True, eq=False)
class Depth:
    """The branches that go.

    Args:
        branches: all of them, in the order of execution.
        gone: those that go at any budget.
        worth: of the others that may go, what decides when: a channel's key and a branch's are compared.
        said: what the plan says of it.
    """

    branches: Mapping[str, Branch] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    worth: Mapping[str, float] = field(default_factory=dict)
    said: Mapping[str, object] = field(default_factory=dict)

    def with_inner(self, names: Collection[str]) -> tuple[str, ...]:
        """These, and what lies inside of them; in the order of execution."""
        tensors = [set(self.branches[name].tensors) for name in names]
        return tuple(name for name, branch in self.branches.items()
                     if any(own.issuperset(branch.tensors) for own in tensors))

    def without(self, names: Collection[str]) -> "Depth":
        """Once these are gone as well."""
        return replace(self, gone=self.with_inner({*self.gone, *names}))

    def holds(self, group: CouplingGroup) -> bool:
        """Whether a group lies in branches that are gone, and nowhere else."""
        gone = {tensor for name in self.gone for tensor in self.branches[name].tensors}
        return bool(group.members) and all(member.name in gone for member in group.members)

    @property
    def tensors(self) -> dict[str, tuple[str, ...]]:
        """What goes with the branches that are gone."""
        return {name: self.branches[name].tensors for name in self.gone}


def depth_of(depth: object, coupling: "Coupling", model: torch.nn.Module, choice: "Choice", criterion: Any,
             data: Data | None, kind: str, ignore: Ignored) -> Depth:
    """The branches that go.

    Args:
        depth: the fraction of branches that stay, ``"auto"``, or None.
        choice: how channels are scored and compared.
        criterion: how branches are; as channels are where None.
        kind: of the budget: ``"macs"``, ``"params"``, …
        ignore: modules whose branches stay.

    Raises:
        BudgetError: a fraction outside (0, 1], or ``"auto"`` beside a budget that it does not count in.
        UnsupportedError: the model has no branch that may go, or is to keep its own Python.
    """
    if depth is None:
        if criterion is not None:
            raise InputError("depth_criterion= scores branches, and none is asked to go; write depth=0.5 or "
                             "depth=\"auto\", or leave it out")
        return Depth()
    share = _share(depth)
    _check(coupling, share, kind, choice, criterion)
    held = ignored_branches(coupling.branches, model, ignore)
    scores = score_branches(coupling, model, criterion or choice.criterion, data)
    by = choice.said if criterion is None else described(criterion)
    said = {"keep": AUTO if share is None else float(share), "criterion": by, "scores": scores}
    found = Depth(coupling.branches, said=said)
    free = {name: score for name, score in scores.items() if name not in held}
    relative = _compared(free, coupling.branches, "absolute" if criterion == COSINE else choice.scope)
    if share is None:
        worth = _priced(relative, coupling, choice.scope, choice.per, criterion)
        last = max(worth, key=worth.__getitem__, default="") if not held else ""  # as of channels, one always stays
        return replace(found, worth={name: value for name, value in worth.items() if name != last})
    most = len(scores) - -(-len(scores) * share.numerator // share.denominator)
    for name in sorted(relative, key=relative.__getitem__):
        if len(after := found.without([name]).gone) <= most and not held & set(after):
            found = found.without([name])
    return found


def _share(depth: object) -> Fraction | None:
    """The fraction that stays, as it was written; None for ``"auto"``."""
    if depth == AUTO:
        return None
    number = isinstance(depth, Real) and not isinstance(depth, bool | np.bool_)
    share = Fraction(str(depth)) if number and np.isfinite(float(depth)) else None  # type: ignore[arg-type]
    if share is None or not 0 < share <= 1:
        raise BudgetError(f"depth must be the fraction of residual branches that stay, in (0, 1], or \"auto\", got "
                          f"{depth!r}; write depth=0.75")
    return share


def _check(coupling: "Coupling", share: Fraction | None, kind: str, choice: "Choice", criterion: object) -> None:
    said = "\"auto\"" if share is None else f"{float(share):g}"
    if coupling.mode != GRAPH or coupling.policy.form != GRAPH:
        why = "its Python cannot be traced" if coupling.mode != GRAPH else "form=\"module\" keeps its Python"
        remedy = "leave depth= out" if coupling.mode != GRAPH else "pass form=\"graph\", or leave depth= out"
        raise UnsupportedError(f"depth= must be of a graph, out of which branches are taken, and depth={said} is of a "
                               f"model without one: {why}, which adds each branch by itself; {remedy}")
    if not coupling.branches:
        raise UnsupportedError("depth= removes residual branches, and the model has none that may go: a sum t + f(t) "
                               "whose other inner values nobody uses; leave it out")
    if kind in ("latency", "latency_ms"):
        raise BudgetError(f"depth= must stand alone or beside macs= or params=, which know what a branch costs, and "
                          f"depth={said} stands beside {kind}=, whose table knows layers by their widths alone; write "
                          f"small = fxprune.compress(model, x, depth={said}), and compress that with {kind}=")
    if share is None and kind not in PRICES:
        raise BudgetError(f"depth=\"auto\" removes branches within macs= or params=, got {kind}=; write "
                          "macs=0.5, depth=\"auto\", or a fraction, depth=0.75")
    if share is None and choice.scope == "absolute" and criterion is not None:
        raise InputError("scope=\"absolute\" compares scores of channels and of branches as they are, so that they "
                         "must be of one criterion; leave depth_criterion= out, or write scope=\"global\"")


def _compared(scores: Mapping[str, float], branches: Mapping[str, Branch], scope: str) -> dict[str, float]:
    """As scores of channels are: as they are, or in units of the mean of all branches that end in the same stream."""
    if scope == "absolute":
        return dict(scores)
    streams: dict[tuple[str, ...], list[float]] = {}
    for name, score in scores.items():
        streams.setdefault(branches[name].stream, []).append(score)
    means = {stream: float(np.mean(found)) or 1.0 for stream, found in streams.items()}
    return {name: score / means[branches[name].stream] for name, score in scores.items()}


def _priced(relative: Mapping[str, float], coupling: "Coupling", scope: str, per: str | None, criterion: object
            ) -> dict[str, float]:
    """The keys by which branches and blocks of channels are merged into one list."""
    found = dict(relative)
    if scope != "absolute" and criterion == COSINE:
        mean = float(np.mean(list(found.values()))) or 1.0
        found = {name: value / mean for name, value in found.items()}
    if per is not None:
        before = max(getattr(coupling.costs, per)(coupling.widths), 1)
        left = {name: getattr(coupling.costs_without([name]), per)(coupling.widths) for name in found}
        found = {name: value / max(1 - left[name] / before, np.finfo(float).tiny) for name, value in found.items()}
    if scope in ("global", "absolute"):
        return found
    return {name: rank / len(found) for rank, name in enumerate(sorted(found, key=found.__getitem__), 1)}
