"""Which slices of which parameters are shrunk together: the terms of a group penalty, as plain arrays.

A *term* belongs to one coupling group and has one *block* per channel; a block is the set of weights whose joint
Euclidean norm is penalised. Which weights those are is what the options choose:

    per voter                 the filter that the voter has for the channel (a slice of its weight); behind a gate with
                              its bias, and scale and shift of its normalisation
    ``include_scale=True``    the same, and the scale of the normalisation that directly follows the voter
    ``consumers=True``        besides, a term for each consumer: the slices that read the channel
    ``joint=True``            one term for the whole group: voters, consumers and every normalisation's scale at once
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from fxprune.ir.groups import CouplingGroup, Member


@dataclass(frozen=True, eq=False)
class Term:
    """One block per channel of a group.

    Args:
        group: the group's name.
        layer: what the report calls the term: its voter's or consumer's layer, ``"joint"`` for the joint norm.
        size: the number of channels, and of blocks.
        parts: the parameters' dimensions whose slices make up the blocks.
        voter: whether the term is a voter's own.
        votes: whether a channel is given up only once this term's block is at zero.
    """

    group: str
    layer: str
    size: int
    parts: tuple[Member, ...]
    voter: bool
    votes: bool = True


def voter_terms(group: CouplingGroup, parameters: Collection[str], scales: Mapping[str, str] | None) -> list[Term]:
    """One term per voter; with ``scales`` (voter's parameter -> its normalisation's scale) the scale is part of it.

    Gates have none, and voters behind a gate have their bias, scale and shift in it in any case.
    """
    members = {(m.name, m.dim): m for m in group.members}
    terms = []
    for voter in group.voters:
        if voter.name not in parameters:
            continue
        # Behind a gate nothing may be left to let through: bias and shift are part of the block.
        wanted = dict.fromkeys([(scales or {}).get(voter.name, ""), *group.shifts.get(voter.name, ())])
        beside = [members[name, 0] for name in wanted if (name, 0) in members and name in parameters]
        terms.append(Term(group.name, voter.layer, group.size, (voter, *beside), True))
    return terms


def consumer_terms(group: CouplingGroup, parameters: Collection[str]) -> list[Term]:
    """One term per consumer."""
    return [Term(group.name, m.layer, group.size, (m,), False, False) for m in group.consumers if m.name in parameters]


def joint_term(group: CouplingGroup, parameters: Collection[str], scales: Collection[str]) -> Term:
    """One term over voters, consumers and the scales; biases and running statistics are left out."""
    wanted = (*group.voters, *group.consumers, *(m for m in group.members if m.name in scales))
    parts = {(m.name, m.dim): m for m in wanted if m.name in parameters}
    return Term(group.name, "joint", group.size, tuple(parts.values()), False)


def direction_of(size: int, direction: tuple[float, float], power: float) -> np.ndarray:
    """a_i = a_min + (a_max - a_min) · (i / (n - 1))^p, float64 [n]; a_min where n = 1.

    >>> direction_of(5, (1.0, 5.0), 1.0).tolist(), direction_of(3, (0.0, 8.0), 2.0).tolist()
    ([1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 2.0, 8.0])
    """
    low, high = direction
    return low + (high - low) * (np.arange(size) / max(size - 1, 1)) ** power


def weights_of(term: Term, shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """How many weights each block has: float64 [size]."""
    count = np.zeros(term.size)
    for part in term.parts:
        shape = shapes[part.name]
        rest = int(np.prod(shape, dtype=np.int64)) // max(shape[part.dim], 1)
        count += rest * np.bincount(part.channel, minlength=term.size)
    return count
