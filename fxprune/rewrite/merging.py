"""Merge what goes into what stays, without data: what reads a removed channel reads its nearest kept one instead.

Srinivas and Babu, "Data-free Parameter Pruning for Deep Neural Networks" (BMVC 2015): where two filters, biases
included, are alike, so are their outputs, and a_j x_j + a_k x_k ≈ (a_j + a_k) x_k. Filters are compared as they leave
the batch norm behind them (`fxprune.planning.criteria.filters`), which also compares those that differ by a factor that
the norm takes out.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fxprune.capture.model_walk import named_tensors
from fxprune.capture.structure import deep_copy
from fxprune.errors import PlanError
from fxprune.ir.groups import CouplingGroup, Member
from fxprune.planning import Plan
from fxprune.planning.criteria.filters import distances, effective
from fxprune.planning.scoring import check_model

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


def merge(model: nn.Module, coupling: "Coupling", plan: Plan) -> nn.Module:
    """A copy in which the readers of every channel that the plan removes read its nearest kept one as well.

    The plan fits the copy with ``weights="any"``: ``fxprune.apply(fxprune.merge(model, coupling, plan), plan,
    weights="any")``. Where a removed channel is the twin of a kept one, the result computes what the original does.

    Args:
        model: the original; it is not changed.
        coupling: `fxprune.analyze` of it.
        plan: drawn on it; ``criterion="similarity"`` removes what merges best.

    Raises:
        InputError: the coupling is another model's.
        PlanError: the plan is.

    >>> from fxprune import analyze, apply, plan
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> with torch.no_grad():
    ...     twin = net[0].weight[2].copy_(net[0].weight[0]), net[0].bias[2].copy_(net[0].bias[0])
    >>> x = torch.randn(5, 2)
    >>> coupling = analyze(net, x)
    >>> drawn = plan(coupling, net, widths={"0": 2}, criterion="similarity")
    >>> torch.allclose(apply(merge(net, coupling, drawn), drawn, weights="any")(x), net(x), atol=1e-6)
    True
    """
    check_model(coupling, model, "merge")
    unknown = [name for name in plan.groups if name not in coupling.groups]
    if unknown:
        raise PlanError(f"the plan must be drawn on this coupling, and its group {unknown[0]!r} is not there")
    merged = deep_copy(model)
    tensors = {name: tensor.detach() for name, tensor in named_tensors(merged)}
    filters = {name: np.concatenate([effective(coupling.groups[name], voter, tensors)
                                     for voter in coupling.groups[name].voters], axis=1) for name in plan.groups}
    for name, group in plan.groups.items():
        kept = np.array(sorted(group.kept))
        gone = np.setdiff1d(np.arange(group.size), kept)
        nearest = kept[distances(filters[name])[np.ix_(gone, kept)].argmin(1)]
        for member in coupling.groups[name].consumers:
            _add_(tensors[member.name], member, coupling.groups[name], gone, nearest)
    return merged


def _add_(weight: Tensor, member: Member, group: CouplingGroup, gone: np.ndarray, nearest: np.ndarray) -> None:
    """Entry by entry: the k-th place of a channel that goes is added to the k-th of the one that stands in for it."""
    places = [member.index[member.channel == channel] for channel in range(group.size)]
    pairs = [(places[a], places[b]) for a, b in zip(gone, nearest, strict=True) if len(places[a]) == len(places[b])]
    if not pairs:
        return
    source, target = (torch.from_numpy(np.concatenate(side)).to(weight.device) for side in zip(*pairs, strict=True))
    weight.index_add_(member.dim, target, weight.index_select(member.dim, source))
