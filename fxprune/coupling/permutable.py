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

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fxprune.ir.evidence import Evidence
from fxprune.ir.policy import Policy
from fxprune.ir.tape import Call, Ref, Tape, refs
from fxprune.ir.trees import mapped
from fxprune.ir.units import Vector
from fxprune.rules.op import Notes, Op
from fxprune.rules.registry import Operand, couple_of

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

FREE = -1
# What may put copies of one unit in another order, or drop some (a flip and a concatenation treat all alike).
_MOVES = {f"aten::{name}" for name in ("roll", "index", "index_select", "slice", "narrow", "split", "split_with_sizes",
                                       "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")}
_SCANS = {"aten::cumsum", "aten::cumprod", "aten::logcumsumexp"}


def permutable(coupling: "Coupling") -> set[str]:
    """The names of the groups that may be permuted.

    >>> import torch
    >>> from fxprune import analyze
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> permutable(analyze(net, torch.zeros(1, 3)))
    {'0'}
    """
    evidence = coupling.evidence
    kinds = _kinds(evidence)
    fixed = np.zeros(len(coupling.groups), bool)
    for vector in evidence.vectors:
        _hold(fixed, evidence, vector, kinds[vector])
    for vector, copies in _moved(evidence):
        _hold(fixed, evidence, vector, copies)
    for vector in _unmoved(coupling):
        owners = evidence.owners(vector)
        fixed[owners[owners >= 0]] = True
    return {name for (name, group), held in zip(coupling.groups.items(), fixed, strict=True)
            if not held and group.frozen is None}


def held_in_order(coupling: "Coupling", channels: Mapping[str, Sequence[int]]) -> list[str]:
    """The groups that kept channels, by group, put in another order, though they may only be removed."""
    moved = {name for name, kept in channels.items() if tuple(kept) != tuple(sorted(kept))}
    return sorted(moved - permutable(coupling)) if moved else []


def _unmoved(coupling: "Coupling") -> Iterator[Vector]:
    """Tables of indices, which name positions and do not move with them, constants that no plan names, and what is
    summed up in order."""
    evidence, dtypes = coupling.evidence, {name: dtype for name, _, dtype in coupling.signature.entries}
    for (name, _), vector in evidence.slots.items():
        if "int" in dtypes.get(name, "") or dtypes.get(name) == "bool":
            yield vector
    for tape, dims in zip(evidence.tapes, evidence.dims, strict=True):
        for ref in tape.constants:
            yield from dims.get(ref, ())
        for call in tape.calls:
            if call.op in _SCANS:
                yield dims[call.args[0].id][call.args[1]]


def _kinds(evidence: Evidence) -> np.ndarray:
    """A number per unit: which parameter's dimension it belongs to, and the how-manieth of its channel it is there."""
    kinds = np.full(len(evidence.channel), FREE, np.int64)
    start = 0
    for vector in evidence.slots.values():
        if len(vector):
            rank = _rank(evidence.channel[vector])
            kinds[vector] = start + rank
            start += int(rank.max()) + 1
    return kinds


def _hold(fixed: np.ndarray, evidence: Evidence, vector: Vector, kinds: np.ndarray) -> None:
    """The groups that lie unevenly in a vector keep their order."""
    free = vector >= 0
    free[free] = evidence.owners(vector) >= 0
    if free.any():
        channels = evidence.channel[vector[free]]
        fixed[_uneven(evidence.group[channels], evidence.ordinal[channels], kinds[free])] = True


def _moved(evidence: Evidence) -> Iterator[tuple[Vector, np.ndarray]]:
    """Where a vector holds units several times (behind a reshape) copies look alike, so that calls that move them are
    followed: their outputs, and for every index which copy it is."""
    for tape, dims in zip(evidence.tapes, evidence.dims, strict=True):
        for call in tape.calls:
            source = dims.get(call.args[0].id, ()) if call.op in _MOVES else ()
            for d, vector in enumerate(source):
                copies = _rank(vector)
                if (vector >= 0).any() and copies[vector >= 0].any():
                    yield from ((vector[to], copies[to]) for to in _followed(call, tape, source, d))


def _followed(call: Call, tape: Tape, source: tuple[Vector, ...], dim: int) -> Iterator[np.ndarray]:
    """For the outputs of a call that only moves: from which index of dimension ``dim`` each index comes."""
    shapes = [ref.shape for ref in refs(call.outs)]
    op = Op(0, call.op, call.overload, shapes, ("", ""), Policy(), {}, Notes())
    marked = Operand(tuple(np.arange(len(v)) if d == dim else np.full(len(v), -1) for d, v in enumerate(source)))
    args, kwargs = mapped((call.args[1:], call.kwargs), lambda ref: Operand(tuple(np.full(n, -1) for n in ref.shape),
                                                                           tape.values.get(ref.id)), Ref)
    couple = couple_of(call.op)
    outs = couple(op, marked, *args, **kwargs) if couple else []
    for vectors in outs if isinstance(outs, list) else [outs]:
        yield from (v for v in vectors if len(v) and (v >= 0).all())


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
