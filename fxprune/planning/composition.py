"""From the kept channels of every group to the kept indices of every parameter and buffer.

A group's channels are numbered; channel c lies at some indices of each member's dimension, and the channels of several
groups may lie in one dimension (concatenation), between indices that nobody may touch. Removing channels removes their
indices. *Ordering* them moves contents between the places that stay: if the places s_0 < s_1 < … stay and the new order
is p_0, p_1, …, then what channel p_j has goes where channel s_j was, in every member, the t-th index to the t-th. So
every place keeps its meaning to the code around it (a flatten, a concatenation, a split), and the network computes the
same function. Kept indices in ascending order are the case p = s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fxprune.errors import PlanError
from fxprune.ir.groups import CouplingGroup, Member
from fxprune.ir.signature import Signature


@dataclass(frozen=True, eq=False)
class Lane:
    """One dimension of one parameter, while it is cut: which indices stay, and whose contents they take."""

    stays: np.ndarray
    takes: np.ndarray

    @classmethod
    def whole(cls, length: int) -> "Lane":
        return cls(np.ones(length, bool), np.arange(length))

    def kept(self, known: dict[bytes, tuple[int, ...]]) -> tuple[int, ...]:
        """The kept indices; ``known`` holds those of other dimensions, most of which are cut alike."""
        taken = self.takes[self.stays]
        key = taken.tobytes()
        if key not in known:
            known[key] = tuple(taken.tolist())
        return known[key]


def compose(groups: Mapping[str, CouplingGroup], kept: Mapping[str, Sequence[int]], signature: Signature,
            aliases: Mapping[str, Sequence[str]]) -> dict[str, dict[int, tuple[int, ...]]]:
    """Kept indices, in their new order, of exactly those dimensions that lose or reorder something.

    Args:
        groups: the coupling's groups.
        kept: group name -> kept channels in their new order; groups that are left out stay whole.
        signature: the model's.
        aliases: first name -> all names, of tensors that have several.

    Raises:
        PlanError: a member does not fit the signature, or channels of unlike members would have to be reordered.
    """
    shapes = {name: shape for name, shape, _ in signature.entries}
    lanes: dict[str, dict[int, Lane]] = {}
    for group_name, channels in kept.items():
        group, order = groups[group_name], np.asarray(channels, dtype=np.int64)
        if len(order) == group.size and (order == np.arange(group.size)).all():
            continue
        stays = np.zeros(group.size, bool)
        stays[order] = True
        moved = bool((np.diff(order) < 0).any())
        for member in group.members:
            if member.name not in shapes or member.dim >= len(shapes[member.name]):
                raise PlanError(f"group {group_name!r} lies in dimension {member.dim} of {member.name!r}, which the "
                                "model's signature does not have; analyse the model again with fxprune.analyze")
            dims = lanes.setdefault(member.name, {})
            lane = dims.setdefault(member.dim, Lane.whole(shapes[member.name][member.dim]))
            lane.stays[member.index[~stays[member.channel]]] = False
            if moved:
                _move(lane, member, group, order)
    known: dict[bytes, tuple[int, ...]] = {}
    first = {name: {dim: lanes[name][dim].kept(known) for dim in sorted(lanes[name])} for name in lanes}
    keep = {alias: dims for name, dims in first.items() for alias in aliases.get(name, (name,))}
    return {name: keep[name] for name in shapes if name in keep}


def _move(lane: Lane, member: Member, group: CouplingGroup, order: np.ndarray) -> None:
    per = np.bincount(member.channel, minlength=group.size)
    if (per != per[0]).any():
        raise PlanError(f"the channels of group {group.name!r} may be removed but not reordered, because they hold "
                        f"unlike numbers of indices of {member.name!r}; list its kept channels in ascending order")
    # A stable sort, so that the t-th index of a channel is the t-th that the member lists.
    table = member.index[np.argsort(member.channel, kind="stable")].reshape(group.size, per[0])
    lane.takes[table[np.sort(order)]] = table[order]
