"""Draw a plan: score the groups, let the voters vote, cut to the budget."""

import cmath
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fxprune.errors import BudgetError, InputError, unknown
from fxprune.ir.files import read_text
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.methods import provides
from fxprune.ir.signature import aliases, named_tensors, signature_of
from fxprune.planning import document
from fxprune.planning.budget import Budget, cut, ranking
from fxprune.planning.check import check_signature
from fxprune.planning.criteria import Criterion, described, resolve, score
from fxprune.planning.digest import digest_of
from fxprune.planning.pruning_plan import Plan
from fxprune.planning.reader import parse
from fxprune.planning.selection import Ignored, Wanted, select
from fxprune.planning.shortfall import GIVEN_UP, say_what_goes_beyond
from fxprune.planning.vote import resolve_vote
from fxprune.planning.vote import vote as voted

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


def plan(coupling: "Coupling", model: torch.nn.Module, *, macs: float | None = None, params: float | None = None,
         channels: float | None = None, threshold: float | None = None, widths: Mapping[str, int] | None = None,
         criterion: str | Criterion = "l2", vote: str = "joint", scope: str = "global", round_to: int = 1,
         groups: Wanted = "auto", ignore: Ignored = (), min_channels: int = 1) -> Plan:
    """Which channels stay. The model is only read.

    Args:
        coupling: `fxprune.analyze` of this model.
        model: the model whose weights are scored.
        macs, params, channels: the fraction to keep, one of them; 0.5 of the MACs where nothing is given. ``channels``
            keeps ⌈f·n⌉ of each group.
        threshold: in their place: remove the channels whose voted score is below it. A group that would lose all of
            them keeps ``min_channels``, and a warning names it.
        widths: in their place: the width of each group that is to be cut, by group name.
        criterion: ``"l1"``, ``"l2"``, ``"bn_scale"``, ``"random"``, or an object called with (group, tensors).
        vote: ``"joint"``, ``"intersection"``, ``"majority"`` or ``"union"``.
        scope: ``"global"`` compares scores across groups, ``"uniform"`` cuts all groups alike.
        round_to: widths are multiples of it, in groups of that size or more.
        groups: what may be cut: ``"auto"``, group names, patterns over layer names, or groups.
        ignore: module names, patterns or modules whose channels, read or written, stay.
        min_channels: the fewest channels that a group may keep.

    Raises:
        BudgetError: the budget is malformed or cannot be reached.
        InputError: an argument, or the weights, are not as described.
        UnsupportedError: the model has nothing to prune.
    """
    targets = {"macs": macs, "params": params, "channels": channels, "threshold": threshold}
    given = [name for name, value in targets.items() if value is not None]
    if widths is not None and given:
        raise BudgetError(f"widths= takes the place of a budget, got {given[0]}={targets[given[0]]} as well; drop one")
    if not given:
        targets["macs"] = 0.5
    budget = Budget.of(**targets, scope=scope, round_to=round_to, min_channels=min_channels)
    criterion, criterion_name = resolve(criterion), described(criterion)
    resolve_vote(vote)
    _check_model(coupling, model)
    free = select(coupling.groups, model, groups if widths is None else _named(coupling, widths), ignore)
    scores = score_groups(free, model, criterion, vote)
    target: dict[str, object] = {budget.kind: float(budget.value)}
    if widths is None:
        kept = cut(budget, coupling.costs, {g.name: g.size for g in coupling.groups.values()}, scores)
        _say_what_is_held(budget, scores)
    else:
        kept = {g.name: _best(scores[g.name], _width(g, widths[g.name])) for g in free}
        target = {"widths": {g.name: int(widths[g.name]) for g in free}}
    if vote == "intersection" and budget.kind != "threshold":
        say_what_goes_beyond(coupling, {name: score < GIVEN_UP for name, score in scores.items()}, kept,
                             "widths=" if widths is not None else f"{budget.kind}={float(budget.value):g}", 3)
    whole = [name for name, group in coupling.groups.items() if not group.frozen and name not in kept]
    options = {"budget": target, "criterion": criterion_name, "vote": vote, "scope": scope, "round_to": int(round_to),
               "min_channels": int(min_channels), "whole": whole}
    return Plan.build(coupling.groups, kept, scores=scores, signature=coupling.signature, inputs=coupling.inputs,
                      digest=digest_of(model), aliases=aliases(model), options=options, policy=asdict(coupling.policy),
                      mode=coupling.mode)


@provides(Plan, "from_widths")
def planned_widths(coupling: "Coupling", model: torch.nn.Module, widths: Mapping[str, int] | str | os.PathLike,
                   criterion: str | Criterion | None, vote: str | None) -> Plan:
    """The plan at these widths, or at those of a plan file in which they were edited."""
    options: Mapping[str, Any] = {}
    if isinstance(widths, (str, os.PathLike)):
        widths, found = document.edited(parse(read_text(widths)))
        check_signature(found["signature"], coupling.signature)
        options = found["options"]
    return plan(coupling, model, widths=widths, criterion=criterion or options.get("criterion", "l2"),
                vote=vote or options.get("vote", "joint"))


def score_groups(groups: list[CouplingGroup], model: torch.nn.Module, criterion: str | Criterion = "l2",
                 vote: str = "joint") -> dict[str, np.ndarray]:
    """One voted score per channel (float64 [size]) of each group.

    Raises:
        InputError: weights that are not finite, or scores that make no sense.
    """
    tensors = {name: tensor.detach() for name, tensor in named_tensors(model)}
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not _finite(parameter.detach()):
            raise InputError(f"weights must be finite to be scored, but {name!r} holds "
                             f"{int((~torch.isfinite(parameter)).sum())} infinite or NaN values; load a checkpoint "
                             "that did not diverge")
    criterion = resolve(criterion)
    return {group.name: voted(score(criterion, group, tensors), vote) for group in groups}


def _say_what_is_held(budget: Budget, scores: Mapping[str, np.ndarray]) -> None:
    """A threshold may ask for more than groups may lose."""
    held = [name for name, score in scores.items()
            if budget.kind == "threshold" and score.max() < budget.value and budget.min_channels < len(score)]
    if held:
        named = ", ".join(map(repr, held[:3])) + (f" and {len(held) - 3} more groups" if len(held) > 3 else "")
        warnings.warn(f"threshold={float(budget.value):g} is above every score of {named}, and would empty them: "
                      f"each keeps its best min_channels={budget.min_channels} (rounded up to "
                      f"round_to={budget.round_to})", stacklevel=3)


def _finite(tensor: torch.Tensor) -> bool:
    """The sum is finite if all are; the exact test is several times as slow, and needed only if it is not."""
    return cmath.isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


def _check_model(coupling: "Coupling", model: torch.nn.Module) -> None:
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}; write "
                         "fxprune.plan(coupling, model, macs=0.5)")
    difference = coupling.signature.difference(signature_of(model))
    if difference:
        words = difference.replace(" here and ", " in the coupling and ").replace(" there", "")
        raise InputError(f"the coupling must come from this model, but {words} in the model; write "
                         "coupling = fxprune.analyze(model)")


def _named(coupling: "Coupling", widths: Mapping[str, int]) -> list[str]:
    if not isinstance(widths, Mapping) or not widths:
        raise InputError(f"widths must map group names to widths, got {widths!r}; write {{'conv1': 32}}")
    for name in widths:
        if name not in coupling.groups:
            raise InputError(unknown("group", name, coupling.groups))
    return list(widths)


def _width(group: CouplingGroup, width: int) -> int:
    good = isinstance(width, int | np.integer) and not isinstance(width, bool) and 1 <= width <= group.size
    if not good:
        raise InputError(f"the width of group {group.name!r} must be an integer from 1 to {group.size}, got {width!r}")
    return int(width)


def _best(scores: np.ndarray, width: int) -> np.ndarray:
    return np.sort(ranking(scores)[len(scores) - width:])
