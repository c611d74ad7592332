"""Does a plan fit the model and its coupling? Each check says what is wrong and where."""

from collections.abc import Mapping, Sequence

import numpy as np

from fxprune.errors import PlanError, unknown
from fxprune.ir.branches import Branch
from fxprune.ir.groups import CouplingGroup
from fxprune.ir.signature import Signature
from fxprune.planning.composition import compose

Keep = Mapping[str, Mapping[int, Sequence[int]]]
REDRAW = "draw it again with fxprune.plan"


def check_signature(planned: Signature, actual: Signature) -> None:
    """The plan's model and this one have the same names, shapes and dtypes."""
    difference = planned.difference(actual)
    if difference:
        raise PlanError("a plan only fits a model with the same parameters and buffers as the one it was drawn for, "
                        f"but {difference.replace(' here and ', ' in the plan and ').replace(' there', '')} in the "
                        f"model (already pruned, or another architecture?); {REDRAW} for this model")


def check_indices(keep: Keep, signature: Signature) -> None:
    """Every list names an existing dimension, and holds indices in range, none twice, at least one."""
    shapes = {name: shape for name, shape, _ in signature.entries}
    for name, dims in keep.items():
        if name not in shapes:
            raise PlanError(f"plan.keep: {unknown('parameter or buffer', name, shapes)}")
        for dim, indices in dims.items():
            place, shape = f"plan.keep[{name!r}][{dim!r}]", shapes[name]
            if isinstance(dim, bool) or not isinstance(dim, int) or not 0 <= dim < len(shape):
                raise PlanError(f"{place}: {name!r} has dimensions 0 to {len(shape) - 1}, of lengths {list(shape)}")
            check_list(place, indices, shape[dim])


def check_list(place: str, indices: Sequence[int], length: int) -> None:
    """Integers in [0, length), none twice, at least one."""
    array = np.asarray(indices)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
        raise PlanError(f"{place} must list at least one index, as integers; {REDRAW}")
    outside = (array < 0) | (array >= length)
    if outside.any():
        raise PlanError(f"{place}: indices must lie in 0 to {length - 1}, got {array[outside][0]}, which is out of "
                        f"range; {REDRAW}")
    # Not bincount, which makes as much room as the length claims.
    found, counts = np.unique(array, return_counts=True)
    if counts.max() > 1:
        again = counts.argmax()
        raise PlanError(f"{place}: no index may be repeated, got {found[again]} {counts[again]} times; {REDRAW}")


def check_groups(kept: Mapping[str, Sequence[int]], groups: Mapping[str, CouplingGroup]) -> None:
    """The kept channels are those of known groups, exist, are not repeated, and frozen groups are whole."""
    for name, channels in kept.items():
        if name not in groups:
            raise PlanError(f"plan.groups: {unknown('coupling group', name, groups)}")
        group = groups[name]
        check_list(f"plan.groups[{name!r}].kept", channels, group.size)
        if group.frozen and tuple(channels) != tuple(range(group.size)):
            raise PlanError(f"plan.groups[{name!r}].kept: all {group.size} channels must stay, because the group is "
                            f"frozen: {group.frozen}; {REDRAW}")


def check_branches(planned: Mapping[str, Sequence[str]], signature: Signature,
                   branches: Mapping[str, Branch] | None = None) -> None:
    """The tensors of the branches that go exist, and are those of the model's own branches where these are given."""
    names = {name for name, _, _ in signature.entries}
    for name, tensors in planned.items():
        for tensor in tensors:
            if tensor not in names:
                raise PlanError(f"plan.branches[{name!r}]: {unknown('parameter or buffer', tensor, names)}")
        if branches is None:
            continue
        if name not in branches:
            raise PlanError(f"plan.branches: {unknown('branch', name, branches)}" if branches else
                            f"plan.branches: the model has no residual branch that may go, got {name!r}; {REDRAW}")
        stray = sorted({*tensors} ^ {*branches[name].tensors})
        if stray or len(tensors) != len(set(tensors)):
            verb = "repeats" if not stray else "names" if stray[0] in tensors else "leaves out"
            raise PlanError(f"plan.branches[{name!r}] must name what goes with the branch, each once, and it {verb} "
                            f"{(stray or list(tensors))[0]!r}; {REDRAW}")


def check_coupling(keep: Keep, kept: Mapping[str, Sequence[int]], groups: Mapping[str, CouplingGroup],
                   signature: Signature, aliases: Mapping[str, Sequence[str]]) -> None:
    """``keep`` is exactly what the groups' kept channels imply: each channel goes or stays, in the same order, in all
    of its members at once, and frozen ones stay."""
    check_groups(kept, groups)
    implied = compose(groups, kept, signature, aliases)
    owners = {alias: name for name, names in aliases.items() for alias in names}
    shapes = {name: shape for name, shape, _ in signature.entries}
    for name in [*keep, *(n for n in implied if n not in keep)]:
        ours, theirs = keep.get(name, {}), implied.get(name, {})
        for dim in sorted({*ours, *theirs}):
            whole = range(shapes[name][dim])
            got, want = tuple(ours.get(dim, whole)), tuple(theirs.get(dim, whole))
            if got != want:
                raise PlanError(_broken(name, dim, got, want, groups, owners.get(name, name)))
            if dim not in theirs:
                raise PlanError(f"plan.keep[{name!r}][{dim}] must be left out, because nothing of it goes or moves; "
                                f"{REDRAW}")


def _broken(name: str, dim: int, got: tuple[int, ...], want: tuple[int, ...], groups: Mapping[str, CouplingGroup],
            owner: str) -> str:
    stray = sorted(set(got) ^ set(want))
    index = stray[0] if stray else next(w for g, w in zip(got, want, strict=False) if g != w)
    if not stray:
        what = f"moves index {index} elsewhere than"
    elif index in got:
        what = f"keeps index {index}, but it is removed by"
    else:
        what = f"removes index {index}, but it is kept by"
    for group in groups.values():
        for member in group.members:
            at = np.flatnonzero(member.index == index)
            if len(at) and (member.name, member.dim) == (owner, dim):
                others = ", ".join(f"{m.name}[{m.dim}]" for m in group.members if m is not member)
                frozen = f" (frozen: {group.frozen})" if group.frozen else ""
                return (f"plan.keep[{name!r}][{dim}] breaks a coupling: it {what} channel {member.channel[at[0]]} of "
                        f"group {group.name!r}{frozen}, which {others or 'nothing else'} shares; a channel goes or "
                        f"stays in all of its members at once: {REDRAW}")
    return (f"plan.keep[{name!r}][{dim}] breaks a coupling: index {index} belongs to no group, so that it can neither "
            f"go nor move; {REDRAW}")
