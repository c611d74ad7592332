"""Coupling groups and their members. No record holds a weight or an activation."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import numpy as np

from fxprune.ir.units import Reason

PRODUCER, CONSUMER, CARRIER = "producer", "consumer", "carrier"


@dataclass(frozen=True, eq=False)
class Member:
    """Where a group's channels lie in one dimension of one parameter or buffer.

    Entry k says: index ``index[k]`` of dimension ``dim`` belongs to channel ``channel[k]`` of the group (0 ≤ channel
    < group.size). Most members hold each channel once; a linear layer behind a flatten holds each H·W times.

    Args:
        name: the parameter's or buffer's name, as in ``state_dict``.
        dim: the dimension.
        role: ``"producer"`` (creates the channels: a voter), ``"consumer"`` (reads them) or ``"carrier"`` (is
            applied channel by channel: batch norm, a bias, layer scale).
        channel: int64 [k].
        index: int64 [k].
    """

    name: str
    dim: int
    role: str
    channel: np.ndarray
    index: np.ndarray

    @property
    def layer(self) -> str:
        """The module that owns the parameter (the parameter's own name where the root owns it)."""
        return self.name.rpartition(".")[0] or self.name


@dataclass(frozen=True, eq=False)
class CouplingGroup:
    """Channels whose members lie in the same dimensions, in the same way.

    Args:
        name: the layer people would call it by; ``conv1#2`` where several groups share a layer.
        size: the number of channels.
        members: where the channels lie.
        operators: names of the operators that couple the members (``add``, ``cat``, …).
        frozen: why the channels may not be removed, or None.
        gates: parameters that produce the channels of a gate, whose zero is none behind ``sigmoid``: they do not vote.
        shifts: for voters behind such a gate, what else must be zero for their channels to be zero.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    operators: tuple[str, ...] = ()
    frozen: Reason | None = None
    gates: frozenset[str] = frozenset()
    shifts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def voters(self) -> tuple[Member, ...]:
        """The producers that are no gates; where nothing produces the channels (a product of plain parameters), every
        weight."""
        return tuple(m for m in self.members if m.role == PRODUCER and m.name not in self.gates) or self.members

    @property
    def consumers(self) -> tuple[Member, ...]:
        return tuple(m for m in self.members if m.role == CONSUMER)

    def __repr__(self) -> str:
        state = f"frozen: {self.frozen}" if self.frozen else f"{len(self.voters)} voters"
        return f"CouplingGroup({self.name!r}, {self.size} channels, {len(self.members)} members, {state})"


def is_scale(member: Member, rank: int, names: Container[str]) -> bool:
    """Whether it is the scale of a normalisation: a 1-D ``weight`` that is applied channel by channel, with a ``bias``
    or a ``running_var`` beside it (which tells it from PReLU's slopes).

    Args:
        member: of a group.
        rank: of the parameter that it lies in.
        names: all parameters and buffers of the model.
    """
    if member.role != CARRIER or rank != 1 or member.name.rpartition(".")[2] != "weight":
        return False
    return any(f"{member.layer}.{beside}" in names for beside in ("bias", "running_var"))
