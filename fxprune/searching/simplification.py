"""NetAdapt (Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", ECCV 2018): cut
one group at a time, each step the one that does the least harm among those that save enough."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from fxprune.coupling.analysis import Analysis
from fxprune.coupling.coupling import Coupling
from fxprune.errors import BudgetError, InputError
from fxprune.ir.policy import Policy
from fxprune.passes import analysis_of, carry_out
from fxprune.planning import Plan
from fxprune.planning.draw import plan as draw
from fxprune.planning.selection import Ignored, Wanted, select
from fxprune.planning.timing import PriceList
from fxprune.results import attach, found_record, record
from fxprune.rewrite.folding import Folded
from fxprune.verification import check

Price = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Simplification:
    """One step.

    Args:
        group: which was cut.
        width: what it has left.
        share: of the first model's resource, what is left.
        value: the result's.
        rejected: group -> the value of what was tried in its place.
    """

    group: str
    width: int
    share: float
    value: float
    rejected: dict[str, float]


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of it: the last model, whose record holds what all steps came to, and the steps."""

    module: nn.Module
    steps: tuple[Simplification, ...]


def netadapt(model: nn.Module, example_inputs: Any, evaluate: Callable[[nn.Module], float], *,
             macs: float | None = None, params: float | None = None, latency: float | None = None,
             table: PriceList | None = None, step: float = 0.05, decay: float = 1.0,
             fit: Callable[[nn.Module], Any] | None = None, criterion: Any = "l2", groups: Wanted = "auto",
             ignore: Ignored = (), round_to: int = 1, min_channels: int = 1, policy: Policy | None = None) -> Adapted:
    """Simplify a model step by step: Res(Net_k) ≤ Res(Net_{k−1}) − ΔR_k, with ΔR_k = step · decay^{k−1} · Res(Net_0).

    In step k each group alone is cut by the fewest channels that save so much, trained for a short while, and
    evaluated; the best goes on. At the end, train for a long while, as the paper does.

    Args:
        model: any ``nn.Module``; it is not changed.
        example_inputs: as for `fxprune.analyze`.
        evaluate: ``evaluate(small)``: a number, higher is better.
        macs, params, latency: the share of the resource to keep, one of them.
        table: with ``latency``, `fxprune.latency_table` of the model.
        step: the share of the first model's resource that the first step saves.
        decay: each step saves so much of what the one before did (the paper: 0.96 to 0.98 on ImageNet, quoted from
            memory).
        fit: ``fit(small)`` trains a candidate in place; none does where None.
        criterion: which of a group's channels go (the paper: the magnitude of filters).
        groups, ignore, round_to, min_channels: as for `fxprune.plan`.
        policy: as for `fxprune.analyze`.

    Raises:
        InputError: an argument makes no sense.
        BudgetError: no group alone can save what a step has to.
        VerificationError: a step's result does not compute the masked model before it.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> found = netadapt(net, torch.zeros(1, 2), lambda small: 0.0, params=0.7, step=0.2)
    >>> [(step.group, step.width) for step in found.steps], found.module.get_submodule("0").out_features
    ([('0', 6), ('0', 5)], 5)
    """
    kind, target = _asked({"macs": macs, "params": params, "latency": latency}, table)
    for name, value in (("step", step), ("decay", decay)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise InputError(f"{name} must be a fraction in (0, 1], got {value!r}; write {name}=0.05")
    analysis = analysis_of(model, example_inputs, policy)
    names, widths, steps = analysis.coupling.costs.groups, analysis.coupling.widths, list[Simplification]()
    price = _price(kind, analysis.coupling, model, table)
    first = price(widths)
    while (now := price(widths)) > target * first:
        limit = max(now - step * decay ** len(steps) * first, target * first)
        wanted = [group.name for group in select(analysis.coupling.groups, model, groups, ignore)]
        found = dict(_proposals(widths, price, limit, {name: names.index(name) for name in wanted}, round_to,
                                min_channels))
        if not found:
            raise BudgetError(f"a step must save {(now - limit) / first:.2%} of the {kind} by one group alone, and no "
                              f"group of those that may be cut can, with {now / first:.1%} left; ask for a smaller "
                              "step, or more groups")
        plans = {name: draw(analysis.coupling, model, widths={name: width}, criterion=criterion)
                 for name, width in found.items()}
        values, best, model = _tried(model, analysis, plans, evaluate, fit)
        widths = _narrowed(widths, names.index(best), found[best])
        steps.append(Simplification(best, found[best], price(widths) / first, values.pop(best), values))
        analysis = analysis_of(model, example_inputs, policy)
    return Adapted(model, tuple(steps))


def _asked(given: dict[str, float | None], table: Any) -> tuple[str, float]:
    """The resource, and the share of it to keep."""
    asked = {kind: value for kind, value in given.items() if value is not None}
    if len(asked) != 1:
        raise InputError(f"one of macs, params and latency must be given, got {', '.join(asked) or 'none'}; write "
                         "macs=0.5")
    (kind, value), = asked.items()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise InputError(f"{kind} must be a fraction in (0, 1), got {value!r}; write {kind}=0.5")
    if (kind == "latency") != (table is not None):
        raise InputError("latency= and table= belong together; write table=fxprune.latency_table(model, inputs)")
    return kind, float(value)


def _price(kind: str, coupling: Coupling, model: nn.Module, table: PriceList | None) -> Price:
    """What widths (int64 [G]) take of the resource."""
    if table is not None:
        return table.priced(coupling, model)
    found: Price = getattr(coupling.costs, kind)
    return found


def _narrowed(widths: np.ndarray, place: int, width: int) -> np.ndarray:
    """All widths, with that one."""
    return np.where(np.arange(len(widths)) == place, width, widths)


def _proposals(widths: np.ndarray, price: Price, limit: float, places: dict[str, int], round_to: int, least: int
               ) -> Iterator[tuple[str, int]]:
    """Groups, and the largest width at which each alone brings the resource down to the limit."""
    for name, place in places.items():
        allowed = (width for width in range(int(widths[place]) - 1, least - 1, -1) if width % round_to == 0)
        width = next((width for width in allowed if price(_narrowed(widths, place, width)) <= limit), None)
        if width is not None:
            yield name, width


def _tried(model: nn.Module, analysis: Analysis, plans: dict[str, Plan], evaluate: Callable[[nn.Module], float],
           fit: Callable[[nn.Module], Any] | None) -> tuple[dict[str, float], str, nn.Module]:
    """What each candidate is worth; the best one's group, and its module, whose structure is proven before training."""
    values: dict[str, float] = {}
    best, found = "", model
    for name, plan in plans.items():
        small = carry_out(Folded(model), analysis, plan)
        if fit is not None:
            fit(small)
        values[name] = float(evaluate(small))
        if not best or values[name] > values[best]:
            best, found = name, small
    proof = check(model, carry_out(Folded(model), analysis, plans[best]), plans[best], analysis)
    done = replace(record(found), verification=proof).following(found_record(model))
    return values, best, attach(found, done)
