"""Draw a plan: score the groups, let the voters vote, cut to the budget."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fxprune.capture.model_walk import aliases
from fxprune.errors import BudgetError, InputError, unknown
from fxprune.ir.files import read_text
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.methods import provides
from fxprune.planning import document
from fxprune.planning.batches import SAMPLES, Data, Loss
from fxprune.planning.budget import Budget, best, cut_with_branches
from fxprune.planning.check import check_signature
from fxprune.planning.criteria import Criterion
from fxprune.planning.criteria.choice import AUTO, chosen
from fxprune.planning.depth import AUTO as AUTO_DEPTH
from fxprune.planning.depth import Depth, depth_of
from fxprune.planning.digest import digest_of
from fxprune.planning.pattern_bounds import bounds_of
from fxprune.planning.pruning_plan import Plan
from fxprune.planning.reader import parse
from fxprune.planning.roles import Roles
from fxprune.planning.scopes import Going
from fxprune.planning.scoring import as_data, check_model, raw_scores
from fxprune.planning.selection import Ignored, Wanted, select
from fxprune.planning.shortfall import GIVEN_UP, say_what_goes_beyond
from fxprune.planning.timing import COUNTS, PriceList, TimeLimit
from fxprune.planning.vote import resolve_vote
from fxprune.planning.vote import vote as voted

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


def plan(coupling: "Coupling", model: torch.nn.Module, *, macs: float | None = None, params: float | None = None,
         channels: float | Mapping[str, Any] | None = None, threshold: float | None = None,
         widths: Mapping[str, int] | None = None, latency: float | None = None, latency_ms: float | None = None,
         table: PriceList | None = None, table_check: bool = True, correction: float = 1.0,
         criterion: str | Criterion = "l2", vote: str = "joint", scope: str | None = None, per: str | None = None,
         round_to: int | None = None, groups: Wanted = "auto", ignore: Ignored = (), min_channels: int = 1,
         uniform: bool = False, depth: float | str | None = None, depth_criterion: str | Criterion | None = None,
         data: Any = None, loss: Loss | None = None, samples: int | None = SAMPLES) -> Plan:
    """Which channels stay. The model is only read.

    Args:
        coupling: `fxprune.analyze` of this model.
        model: the model whose weights are scored.
        macs, params, channels: the fraction to keep, one of them; 0.5 of the MACs where nothing is given. ``channels``
            keeps ⌈f·n⌉ of each group. It may be a mapping from group names or patterns over layers to fractions:
            alone, of those groups, and the others stay whole; beside another budget, the most that they keep, or
            ``(least, most)``. The last pattern that matches counts.
        threshold: in their place: remove the channels whose voted score is below it. A group that would lose all of
            them keeps ``min_channels``, and a warning names it.
        widths: in their place: the width of each group that is to be cut, by group name.
        latency: in their place: the fraction of the time to keep, by the ``table``; ``macs`` and ``params`` may bound
            it besides. `fxprune.compress` measures what comes of it, and corrects the plan.
        latency_ms: likewise, in milliseconds.
        table: `fxprune.latency_table` of this model.
        table_check: refuse a table of another model or machine.
        correction: how much slower models were, when measured, than the table said.
        criterion: a name out of ``fxprune.planning.criteria.CRITERIA``, an object called with (group, tensors), or
            ``"auto"``: ``"taylor"`` where there is data, compared as it is and priced in what the budget counts;
            without data ``"expected"`` for nets with batch norms, ``"l2"`` for others.
        vote: ``"joint"``, ``"intersection"``, ``"majority"`` or ``"union"``.
        scope: ``"global"`` (the default) compares scores in units of their group's mean, ``"absolute"`` as they are,
            ``"isomorphic"`` among groups of like shape; ``"uniform"`` cuts all groups alike.
        per: ``"macs"`` or ``"params"``: scores are divided by what a channel costs.
        round_to: widths are multiples of it, in groups of that size or more; 1 where None, and with ``latency`` what
            the table found to be good, or, in groups of less than four times that, a half, a quarter and so on of it.
        groups: what may be cut: ``"auto"``, group names, patterns over layer names, or groups.
        ignore: module names, patterns or modules whose channels, read or written, stay.
        min_channels: the fewest channels that a group may keep.
        uniform: give groups that play the same role in repeated blocks (the same path but for a number, and of one
            size) one width, heads and key-value heads included: what a configuration can say. Each group keeps its own
            best channels; a role is cut only where all of its groups may be.
        depth: the fraction of residual branches t + f(t) to keep (``coupling.branches``; ⌈f·n⌉ of them), those of the
            least score going whole; alone, it leaves the channels as they are. ``"auto"`` with ``macs`` or ``params``
            removes branches and channels from one list.
        depth_criterion: how branches are scored, as for `fxprune.score_branches`; by ``criterion`` where None.
        data, loss, samples: for criteria that read data, as for `fxprune.score`.

    Raises:
        BudgetError: the budget is malformed or cannot be reached.
        InputError: an argument, the weights, or the data are not as described.
        UnsupportedError: the model has nothing to prune.
    """
    targets = {"macs": macs, "params": params, "channels": channels, "threshold": threshold, "latency": latency,
               "latency_ms": latency_ms, "widths": widths}
    limit = TimeLimit.of(targets, table, table_check, correction)
    patterns = channels if isinstance(channels, Mapping) else None
    liked = limit.table.step if limit and round_to is None else 0
    round_to = liked or (1 if round_to is None else round_to)
    shallow = depth is not None and depth != AUTO_DEPTH and all(value is None for value in targets.values())
    budgets = {"channels": 1} if shallow else _budgets(targets, limit, patterns)
    data = as_data(data, loss, samples)
    choice = chosen(coupling, criterion, scope, per, data, next(iter(budgets)))
    budget = Budget.of(**budgets, scope=choice.scope, round_to=round_to, min_channels=min_channels, per=choice.per)
    budget = replace(budget, eased=bool(liked))
    resolve_vote(vote)
    check_model(coupling, model)
    roles = Roles.of(coupling.groups, uniform)
    if patterns is not None:
        budget = replace(budget, bounds=roles.bounds(bounds_of(patterns, coupling.groups, budget.kind == "channels")))
    if widths is not None:
        widths = roles.same_widths(_checked(coupling, widths))
    kind = "widths" if widths is not None else budget.kind
    branches = depth_of(depth, coupling, model, choice, depth_criterion, data, kind, ignore)
    free = [] if shallow else _free(coupling, model, roles, budget, groups if widths is None else list(widths), ignore)
    scores = _voted(coupling, model, free, choice.criterion, vote, data)
    cut = _cut(coupling, model, budget, limit, widths, free, scores, roles, branches)
    target = {} if shallow else {**cut.target, **({"channels": patterns} if patterns is not None else {})}
    if vote == "intersection" and budget.kind != "threshold":
        say_what_goes_beyond(coupling, {name: score < GIVEN_UP for name, score in scores.items()}, cut.kept,
                             "widths=" if widths is not None else f"{budget.kind}={float(budget.value):g}", 3)
    kept = {name: channels for name, channels in cut.kept.items() if not cut.branches.holds(coupling.groups[name])}
    whole = [name for name, group in coupling.groups.items() if not group.frozen and name not in kept]
    options = {"budget": target, "criterion": choice.said, "vote": vote, "scope": choice.scope,
               "round_to": int(round_to), "min_channels": int(min_channels), "whole": whole, **cut.clock}
    options |= ({"per": choice.per} if choice.per else {}) | ({"uniform": True} if uniform else {})
    options |= {"depth": cut.branches.said} if depth is not None else {}
    chosen_policy = {name: said for name, said in asdict(coupling.policy).items() if said is not None}
    return Plan.build(coupling.groups, kept, scores=scores, signature=coupling.signature, inputs=coupling.inputs,
                      digest=digest_of(model), aliases=aliases(model), options=options, policy=chosen_policy,
                      mode=coupling.mode, branches=cut.branches.tensors)


@provides(Plan, "from_widths")
def planned_widths(coupling: "Coupling", model: torch.nn.Module, widths: Mapping[str, int] | str | os.PathLike[str],
                   criterion: str | Criterion | None, vote: str | None) -> Plan:
    """The plan at these widths, or at those of a plan file in which they were edited."""
    options: Mapping[str, Any] = {}
    if isinstance(widths, (str, os.PathLike)):
        widths, found = document.edited(parse(read_text(widths)))
        check_signature(found["signature"], coupling.signature)
        options = found["options"]
    drawn_by = options.get("criterion", "l2")
    drawn_by = drawn_by.removeprefix(AUTO) if isinstance(drawn_by, str) else drawn_by
    return plan(coupling, model, widths=widths, criterion=criterion or drawn_by,
                vote=vote or options.get("vote", "joint"))


@dataclass(frozen=True, eq=False)
class _Cut:
    """What a budget comes to.

    Args:
        kept: group -> the channels that stay.
        branches: those that go.
        target: what plans say of the budget.
        clock: what they say of a time.
    """

    kept: Mapping[str, np.ndarray]
    branches: Depth
    target: dict[str, object]
    clock: Mapping[str, object] = field(default_factory=dict)


def _cut(coupling: "Coupling", model: torch.nn.Module, budget: Budget, limit: TimeLimit | None,
         widths: Mapping[str, int] | None, free: list[CouplingGroup], scores: Mapping[str, np.ndarray], roles: Roles,
         branches: Depth) -> _Cut:
    """By the clock, to given widths, or within a budget."""
    target: dict[str, object] = {budget.kind: float(budget.value)}
    if limit is not None:
        kept, clock = limit.cut(budget, coupling, model, scores, shapes_of(coupling, free), roles)
        return _Cut(kept, branches, {**target, **limit.counts}, clock)
    if widths is not None:
        kept = {g.name: best(scores[g.name], _width(g, widths[g.name])) for g in free if g.name in scores}
        return _Cut(kept, branches, {"widths": {name: int(widths[name]) for name in kept}})
    kept, more = _within(budget, coupling, free, scores, roles, branches)
    return _Cut(kept, branches.without(more), target)


def _budgets(targets: Mapping[str, Any], limit: TimeLimit | None, patterns: Mapping[str, Any] | None
             ) -> dict[str, Any]:
    """The one budget that is asked for: half of the MACs where none is, or what the patterns say."""
    beside = ("widths", *(COUNTS if limit else ()))
    beside = (*beside, "channels") if patterns is not None else beside
    given = {name: value for name, value in targets.items() if value is not None and name not in beside}
    if targets["widths"] is not None and given:
        name, value = next(iter(given.items()))
        raise BudgetError(f"widths= takes the place of a budget, got {name}={value} as well; drop one")
    if patterns is not None and (targets["widths"] is not None or "threshold" in given):
        raise BudgetError("channels= may bound macs=, params= or a latency by patterns, and not threshold= or widths=; "
                          "drop one of them")
    return given or ({"macs": 0.5} if patterns is None else {"channels": 1})


def _free(coupling: "Coupling", model: torch.nn.Module, roles: Roles, budget: Budget, groups: Wanted, ignore: Ignored,
          ) -> list[CouplingGroup]:
    """The groups that may be cut; where a budget is by patterns alone, those that they name."""
    found = roles.free(select(coupling.groups, model, groups, ignore), coupling.groups)
    if budget.kind != "channels" or not budget.bounds:
        return found
    bounded = {name for role in budget.bounds for name in roles.groups[role]}
    return [group for group in found if group.name in bounded]


def _voted(coupling: "Coupling", model: torch.nn.Module, groups: list[CouplingGroup], criterion: Criterion, vote: str,
           data: Data | None) -> dict[str, np.ndarray]:
    scores = raw_scores(coupling, model, {group.name: group for group in groups}, criterion, data)
    return {name: voted(rows, vote) for name, rows in scores.items()}


def _within(budget: Budget, coupling: "Coupling", groups: list[CouplingGroup], scores: Mapping[str, np.ndarray],
            roles: Roles, branches: Depth) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    shapes = roles.shapes(shapes_of(coupling, groups)) if budget.scope == "isomorphic" else None
    together = roles.scores(scores, budget)
    going = Going(lambda names: roles.costs(coupling.costs_without(names)), branches.gone, branches.worth)
    kept, gone = cut_with_branches(budget, going, roles.sizes, together, shapes, roles.copies)
    _say_what_is_held(budget, together)
    return roles.kept(kept, scores), gone


def shapes_of(coupling: "Coupling", groups: list[CouplingGroup]) -> dict[str, tuple[Any, ...]]:
    """What groups of like shape have in common: how their channels lie in tensors of which rank and kernel."""
    shapes = {name: shape for name, shape, _ in coupling.signature.entries}
    return {group.name: tuple(sorted((m.role, m.dim, len(shapes[m.name]), shapes[m.name][2:]) for m in group.members))
            for group in groups}


def _say_what_is_held(budget: Budget, scores: Mapping[str, np.ndarray]) -> None:
    """A threshold may ask for more than groups may lose."""
    held = [name for name, score in scores.items()
            if budget.kind == "threshold" and score.max() < budget.value and budget.min_channels < len(score)]
    if held:
        named = ", ".join(map(repr, held[:3])) + (f" and {len(held) - 3} more groups" if len(held) > 3 else "")
        warnings.warn(f"threshold={float(budget.value):g} is above every score of {named}, and would empty them: "
                      f"each keeps its best min_channels={budget.min_channels} (rounded up to "
                      f"round_to={budget.round_to})", stacklevel=5)


def _checked(coupling: "Coupling", widths: Mapping[str, int]) -> Mapping[str, int]:
    if not isinstance(widths, Mapping) or not widths:
        raise InputError(f"widths must map group names to widths, got {widths!r}; write {{'conv1': 32}}")
    for name in widths:
        if name not in coupling.groups:
            raise InputError(unknown("group", name, coupling.groups))
    return widths


def _width(group: CouplingGroup, width: int) -> int:
    good = isinstance(width, int | np.integer) and not isinstance(width, bool) and 1 <= width <= group.size
    if not good:
        raise InputError(f"the width of group {group.name!r} must be an integer from 1 to {group.size}, got {width!r}")
    return int(width)
