"""Which groups' channels may change places.

Let every member of a group move its channels' contents by one permutation π: what channel π(j) has goes where channel
j was, in every parameter, the t-th index of the one to the t-th index of the other. The network computes the same
function if every tensor in between moves alike. Pointwise operators, reductions and contractions see to that by
themselves, since tied dimensions hold the same channels at the same positions. Data movement does if, wherever channels
hold several positions of one tensor (concatenation, channel shuffle, grouped convolution, flatten), their positions
hold the same kinds of units in the same order: where channel a has *a unit of the first weight, then one of the
second*, channel b has so too. That is what is tested here, on every dimension of every tensor of the recorded run. An
index that swaps the two positions of one channel and not those of another fails; such a group keeps its order.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fxprune.algebra.units import Vector

if TYPE_CHECKING:
    from fxprune.coupling.record import Coupling
    from fxprune.coupling.replay import Replay

FREE = -1
# Copies of one unit, that these may have put in any order.
_GATHERS = {"aten::index", "aten::index_select"}
_SCANS = {"aten::cumsum", "aten::cumprod", "aten::logcumsumexp"}


def permutable(coupling: "Coupling") -> set[str]:
    """The names of the groups that may be permuted; none where the coupling has no record of the run.

    >>> import torch
    >>> from fxprune import analyze
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> permutable(analyze(net, torch.zeros(1, 3)))
    {'0'}
    """
    outcome, grouping = coupling._outcome, coupling._grouping
    if outcome is None or grouping is None:
        return set()
    channel = outcome.closure.channel
    kinds = _kinds(outcome.slots, channel)
    fixed = np.zeros(len(grouping.groups), bool)
    for vector in _vectors(outcome):
        places = np.flatnonzero(vector >= 0)
        places = places[grouping.group[channel[vector[places]]] >= 0]
        if len(places):
            units = vector[places]
            group, ordinal = grouping.group[channel[units]], grouping.ordinal[channel[units]]
            fixed[_uneven(group, ordinal, kinds[units])] = True
            # Copies of one unit look alike: they are told apart by where they lie, which must be a common pattern.
            copies = np.unique(group[_rank(units) > 0])
            fixed[np.intersect1d(copies, _uneven(group, ordinal, _gaps(channel[units], places)))] = True
    for vector in _unmoved(coupling):
        owners = grouping.group[channel[vector[vector >= 0]]]
        fixed[owners[owners >= 0]] = True
    return {name for (name, group), held in zip(coupling.groups.items(), fixed, strict=True)
            if not held and group.frozen is None}


def _vectors(outcome: "Replay") -> Iterator[Vector]:
    """Every distinct dim vector of the recorded run."""
    seen: set[int] = set()
    for vector in (*outcome.slots.values(), *(v for dims in outcome.dims for entry in dims.values() for v in entry)):
        if id(vector) not in seen:
            seen.add(id(vector))
            yield vector


def _unmoved(coupling: "Coupling") -> Iterator[Vector]:
    """Tables of indices, which name positions and do not move with them, constants that no plan names, and what is
    summed up in order."""
    outcome, dtypes = coupling._outcome, {name: dtype for name, _, dtype in coupling.signature.entries}
    for (name, _), vector in outcome.slots.items():
        if "int" in dtypes.get(name, "") or dtypes.get(name) == "bool":
            yield vector
    for traced, dims in zip(coupling._captured.traced, outcome.dims, strict=True):
        for ref in traced.tape.constants:
            yield from dims.get(ref, ())
        for call in traced.tape.calls:
            if call.op in _SCANS:
                yield dims[call.args[0].id][call.args[1]]
            if call.op in _GATHERS:
                yield from (v[v >= 0] for v in dims.get(call.args[0].id, ()) if _rank(v[v >= 0]).any())


def _kinds(slots: dict, channel: np.ndarray) -> np.ndarray:
    """A number per unit: which parameter's dimension it belongs to, and the how-manieth of its channel it is there."""
    kinds = np.full(len(channel), FREE, np.int64)
    start = 0
    for vector in slots.values():
        if len(vector):
            rank = _rank(channel[vector])
            kinds[vector] = start + rank
            start += int(rank.max()) + 1
    return kinds


def _gaps(channel: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How far each place is from the first one of its channel.

    >>> _gaps(np.array([4, 2, 2, 4]), np.array([0, 1, 2, 9])).tolist()
    [0, 0, 1, 9]
    """
    _, first, inverse = np.unique(channel, return_index=True, return_inverse=True)
    return places - places[first[inverse.reshape(-1)]]


def _rank(labels: np.ndarray) -> np.ndarray:
    """The how-manieth entry with its label each entry is.

    >>> _rank(np.array([7, 7, 3, 7, 3])).tolist()
    [0, 1, 0, 2, 1]
    """
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    runs = np.diff(np.append(first, len(labels)))
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(first, runs)
    return rank


def _uneven(group: np.ndarray, ordinal: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """The groups whose channels do not all show the same kinds in the same order."""
    order = np.lexsort((ordinal, group))
    group, ordinal, kind = group[order], ordinal[order], kind[order]
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(group))))
    # How many positions the first channel of each group has: the others must repeat its kinds.
    per = np.bincount(run[ordinal == ordinal[starts][run]], minlength=len(starts))
    within = np.arange(len(group)) - starts[run]
    expected = starts[run] + within % per[run]
    same_channel = ordinal == ordinal[np.minimum(starts[run] + within // per[run] * per[run], len(ordinal) - 1)]
    return np.unique(group[(kind != kind[expected]) | ~same_channel])
