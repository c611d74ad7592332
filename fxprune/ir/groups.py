"""The frozen records that the analysis hands on: groups, their members, and what a width costs.

No record holds a weight or an activation.
"""

from collections.abc import Mapping
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


@dataclass(frozen=True, eq=False)
class Count:
    """A count that follows in closed form from the groups' widths: Σ_t coefficient[t] · Π_{f ∈ terms[t]} length_f,
    with length_f = base[f] + Σ_g multiplicity[f, g] · width_g.

    Used for MACs (one term a contraction) and parameters (one term a parameter).

    Args:
        coefficient: int64 [T].
        terms: int64 [T, K], indices of factors; factor 0 is the constant 1 and pads short terms.
        base: int64 [F], the indices of each factor that no group owns.
        factor, group, multiplicity: int64 [N] each, the sparse matrix in coordinate form.

    >>> one = Count(np.array([9]), np.array([[1, 2]]), np.array([1, 3, 0]), np.array([2]), np.array([0]), np.array([1]))
    >>> one(np.array([16])), one(np.array([8]))
    (432, 216)
    """

    coefficient: np.ndarray
    terms: np.ndarray
    base: np.ndarray
    factor: np.ndarray
    group: np.ndarray
    multiplicity: np.ndarray

    def lengths(self, widths: np.ndarray) -> np.ndarray:
        """The length of every factor at these widths (int64 [G])."""
        lengths = self.base.copy()
        np.add.at(lengths, self.factor, self.multiplicity * widths[self.group])
        return lengths

    def each(self, widths: np.ndarray) -> np.ndarray:
        """The value of every term."""
        if not len(self.coefficient):
            return self.coefficient
        return self.coefficient * self.lengths(widths)[self.terms].prod(axis=1)

    def __call__(self, widths: np.ndarray) -> int:
        return int(self.each(widths).sum())


@dataclass(frozen=True, eq=False)
class Costs:
    """What the captured graph costs at given widths (an int64 array, one width per group, in ``groups``' order).

    ``macs`` counts the contractions of one forward pass on the example inputs, ``params`` the parameters (not
    buffers) that the graph uses. ``layers`` names the layer of each factor in ``widths``.
    """

    groups: tuple[str, ...]
    macs: Count
    params: Count
    layer_names: tuple[str, ...] = ()
    layer_widths: Count | None = None
    macs_layers: tuple[str, ...] = ()
    params_names: tuple[str, ...] = ()

    def widths(self, widths: np.ndarray) -> dict[str, int]:
        """Output channels of every layer at these widths."""
        if self.layer_widths is None:
            return {}
        return dict(zip(self.layer_names, map(int, self.layer_widths.each(widths)), strict=True))


@dataclass(frozen=True)
class Signature:
    """The model's structure: name, shape and dtype of every parameter and buffer, in ``state_dict`` order."""

    entries: tuple[tuple[str, tuple[int, ...], str], ...]

    def difference(self, other: "Signature") -> str | None:
        """The first difference in words, or None."""
        mine, theirs = {e[0]: e[1:] for e in self.entries}, {e[0]: e[1:] for e in other.entries}
        for name in [*mine, *theirs]:
            if mine.get(name) != theirs.get(name):
                return f"{name!r} is {_words(mine.get(name))} here and {_words(theirs.get(name))} there"
        return None


def _words(entry: tuple[tuple[int, ...], str] | None) -> str:
    return "absent" if entry is None else f"{list(entry[0])} {entry[1]}"


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one example input (``dtype`` without the ``torch.`` prefix)."""

    shape: tuple[int, ...]
    dtype: str
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class Inputs:
    """The example inputs without their contents: nests of `TensorSpec` and plain values."""

    args: tuple = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    inferred: str = ""
