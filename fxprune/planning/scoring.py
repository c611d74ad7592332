"""Scores of all groups by one criterion, from the weights and, where it needs them, from data."""

import cmath
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fxprune.capture.model_walk import named_tensors, signature_of
from fxprune.errors import InputError
from fxprune.ir.groups import CouplingGroup
from fxprune.planning.batches import SAMPLES, Data, Loss
from fxprune.planning.criteria import Criterion, group_scores, name_of, needs, resolve
from fxprune.planning.split_data import Ranks, SplitData
from fxprune.planning.statistics import READ, gather
from fxprune.planning.vote import vote as voted
from fxprune.planning.whole_weights import WholeWeights, whole

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


def score(coupling: "Coupling", model: torch.nn.Module, criterion: str | Criterion = "l2", data: Any = None, *,
          loss: Loss | None = None, samples: int | None = SAMPLES) -> dict[str, np.ndarray]:
    """What a criterion says of every channel that may go: group name -> float64 [voters, channels].

    Args:
        coupling: `fxprune.analyze` of this model.
        model: it is only read.
        criterion: a name of `fxprune.criteria`, or an object called with (group, tensors).
        data: batches of inputs, or (inputs, labels), for criteria that read data.
        loss: ``loss(model, batch) -> scalar`` for those that read gradients; inferred where None.
        samples: how many samples are read at most.

    Raises:
        InputError: another model, no such criterion, no data for one that needs it, or data that does not fit.

    >>> from fxprune import analyze
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> coupling = analyze(net, torch.zeros(1, 2))
    >>> score(coupling, net, "taylor", [torch.randn(8, 2)])["0"].shape
    (1, 3)
    """
    check_model(coupling, model, "score")
    groups = dict(coupling.prunable)
    return raw_scores(coupling, model, groups, resolve(criterion), as_data(data, loss, samples))


def as_data(data: Any, loss: Loss | None = None, samples: int | None = SAMPLES) -> Data | None:
    """The data of a call; None where none was given."""
    if data is None and loss is not None:
        raise InputError("loss= is computed on data, and none was given; pass data=batches as well")
    if isinstance(data, SplitData):
        return Data(data.source, loss, data.share(samples), Ranks(data.group))
    return data if data is None or isinstance(data, Data) else Data(data, loss, samples)


def raw_scores(coupling: "Coupling", model: torch.nn.Module, groups: Mapping[str, CouplingGroup],
               criterion: Criterion, data: Data | None) -> dict[str, np.ndarray]:
    """Scores before the vote, of the groups that have any."""
    wanted = needs(criterion)
    if wanted and data is None:
        raise InputError(f"criterion {name_of(criterion)!r} reads data, and none was given; pass data=batches (a few "
                         "hundred inputs, labels are not needed), or take criterion='l2'")
    tensors = checked_tensors(model)
    if not wanted or data is None:
        return {group.name: group_scores(criterion, group, tensors) for group in groups.values()}
    statistics = gather(coupling, model, groups, data, wanted)
    silent = [name for name, group in groups.items() if wanted & READ and not statistics.layers(group)]
    if silent:
        warnings.warn(f"criterion {name_of(criterion)!r} has no statistic of {', '.join(map(repr, silent))}: no weight "
                      "that data could be watched at reads these channels, and they stay whole", stacklevel=4)
    return {name: group_scores(criterion, group, tensors, statistics) for name, group in groups.items()
            if name not in silent}


def score_groups(groups: Collection[CouplingGroup], model: torch.nn.Module, criterion: str | Criterion = "l2",
                 vote: str = "joint") -> dict[str, np.ndarray]:
    """One voted score per channel (float64 [size]) of each group, from the weights alone.

    Raises:
        InputError: weights that are not finite, or scores that make no sense.
    """
    tensors, criterion = checked_tensors(model), resolve(criterion)
    return {group.name: voted(group_scores(criterion, group, tensors), vote) for group in groups}


def checked_tensors(model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    """All parameters and buffers by name; those of a sharded model are gathered when they are asked for.

    Raises:
        InputError: weights that are not finite.
    """
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not _finite(parameter.detach()):
            raise InputError(f"weights must be finite to be scored, but {name!r} holds "
                             f"{int(whole((~torch.isfinite(parameter)).sum()))} infinite or NaN values; load a "
                             "checkpoint that did not diverge")
    return WholeWeights({name: tensor.detach() for name, tensor in named_tensors(model)})


def check_model(coupling: "Coupling", model: torch.nn.Module, what: str = "plan") -> None:
    """Raises InputError where the coupling is not this model's."""
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model must be a torch.nn.Module, got {type(model).__name__}; write "
                         f"fxprune.{what}(coupling, model)")
    difference = coupling.signature.difference(signature_of(model))
    if difference:
        words = difference.replace(" here and ", " in the coupling and ").replace(" there", "")
        raise InputError(f"the coupling must come from this model, but {words} in the model; write "
                         "coupling = fxprune.analyze(model)")


def _finite(tensor: torch.Tensor) -> bool:
    """The sum is finite if all are; the exact test is several times as slow, and needed only if it is not."""
    return cmath.isfinite(whole(tensor.sum()).item()) or bool(whole(torch.isfinite(tensor).all()))
