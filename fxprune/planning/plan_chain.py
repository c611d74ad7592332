"""Two plans in a row as one: the second was drawn on the result of the first.

What is kept in the end, of each dimension of each tensor, is what the second keeps of what the first kept: if the first
takes the indices a_0, a_1, … and the second the positions b_0, b_1, …, that is a_{b_0}, a_{b_1}, …. The channels of the
first original that are kept follow from any member of their group. They say the same thing once more, through the
original's coupling, and the two must agree; they need not where the second plan cuts what only became free by the first
(a grouped convolution with one group left), or where channels were reordered between those of other groups.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fxprune.errors import PlanError
from fxprune.ir.branches import Branch
from fxprune.ir.groups import CouplingGroup, Member
from fxprune.ir.signature import Signature
from fxprune.planning.composition import compose

Keep = Mapping[str, Mapping[int, Sequence[int]]]
Branches = Mapping[str, Sequence[str]]


def chained(first: Keep, signature: Signature, second: Keep, between: Signature, groups: Mapping[str, CouplingGroup],
            aliases: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """Group name -> the kept channels, in their new order, of those groups of the original that lose or move any.

    Args:
        first: what the first plan keeps of each dimension.
        signature: of the original.
        second: likewise, of the first plan's result.
        between: that result's signature.
        groups: the original's groups.
        aliases: first name -> all names of its tensors, of those that have several.

    Raises:
        PlanError: the second plan is not of the first one's result, or no one plan does what the two do.
    """
    shapes = {name: shape for name, shape, _ in signature.entries}
    middle = {name: shape for name, shape, _ in between.entries if name in shapes}
    for name, shape in middle.items():
        left = tuple(len(first.get(name, {}).get(dim, range(length))) for dim, length in enumerate(shapes[name]))
        if left != shape:
            raise PlanError(f"the later plan must be of the earlier one's result, in which {name!r} is {list(left)}, "
                            f"and it was drawn on {list(shape)}: the model was changed in between")

    def taken(name: str, dim: int) -> np.ndarray:
        before = np.asarray(first.get(name, {}).get(dim, range(shapes[name][dim])), np.int64)
        return before[list(second.get(name, {}).get(dim, range(len(before))))]

    kept = {}
    for name, group in groups.items():
        member = next((m for m in group.members if m.name in middle), group.members[0])
        channels = _channels(taken(member.name, member.dim), member, name)
        if channels != tuple(range(group.size)):
            kept[name] = channels
    implied = compose(groups, kept, signature, aliases)
    for name in middle:
        for dim, length in enumerate(shapes[name]):
            if not np.array_equal(implied.get(name, {}).get(dim, range(length)), taken(name, dim)):
                raise apart(f"what is left of {name!r}[{dim}] does not follow from whole channels of the original")
    return kept


def chained_branches(first: Branches, later: Branches, branches: Mapping[str, Branch]) -> dict[str, tuple[str, ...]]:
    """The branches of the original that are gone after both plans.

    Args:
        first, later: name -> the tensors that go; names of the later plan are those of the first one's result.
        branches: the original's.

    Raises:
        PlanError: the later plan's are none of the original's.
    """
    gone = {tensor for tensors in first.values() for tensor in tensors}
    left = {frozenset(branch.tensors) - gone: name for name, branch in branches.items() if name not in first}
    found = {name: tuple(tensors) for name, tensors in first.items()}
    for name, tensors in later.items():
        here = left.get(frozenset(tensors))
        if here is None:
            raise apart(f"branch {name!r} of the first result is none of the original's")
        found[here] = branches[here].tensors
    return {name: found[name] for name in branches if name in found}


def _channels(taken: np.ndarray, member: Member, group: str) -> tuple[int, ...]:
    """The channels whose contents are left, in the order of the places that they now take."""
    owner = dict(zip(member.index.tolist(), member.channel.tolist(), strict=True))
    came: dict[int, int] = {}
    for place, content in zip(sorted(taken.tolist()), taken.tolist(), strict=True):
        if place in owner and came.setdefault(owner[place], owner.get(content, -1)) != owner.get(content, -1):
            raise apart(f"the channels of group {group!r} were taken apart")
    if -1 in came.values():
        raise apart(f"channels of group {group!r} were moved to places of others")
    return tuple(came[place] for place in sorted(came))


def apart(why: str) -> PlanError:
    """No plan of the original is what the two are."""
    return PlanError(f"no one plan does what the two do: {why}; apply them one after the other")
