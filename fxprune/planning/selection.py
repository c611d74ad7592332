"""Which groups may be cut: what the caller names, less what the caller wants to keep."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch

from fxprune.capture.model_walk import aliases, named_tensors
from fxprune.errors import InputError, UnsupportedError, unknown
from fxprune.ir.branches import Branch
from fxprune.ir.groups import CONSUMER, CouplingGroup

Wanted = str | CouplingGroup | Iterable[str | CouplingGroup]
Ignored = str | torch.nn.Module | Iterable[str | torch.nn.Module]


def select(groups: Mapping[str, CouplingGroup], model: torch.nn.Module, wanted: Wanted = "auto",
           ignore: Ignored = ()) -> list[CouplingGroup]:
    """The groups that may be cut, in the coupling's order.

    Args:
        groups: all groups of the coupling, frozen ones included.
        model: the model, which names the modules in ``ignore``.
        wanted: ``"auto"`` (all that is not frozen), or group names, glob patterns over the names of layers whose
            outputs are the group's channels, or groups.
        ignore: module names, glob patterns or modules; groups with a member in them or below them, producers and
            consumers alike, stay whole.

    Raises:
        InputError: a name, pattern or object that matches nothing, or only frozen groups; nothing left to cut.
        UnsupportedError: the model has no channel that may be removed.
    """
    if all(group.frozen for group in groups.values()):
        raise UnsupportedError(f"the model must have channels that can be removed, but all {len(groups)} coupling "
                               f"groups are frozen{_reasons(groups.values())}; print(fxprune.analyze(model).report()) "
                               "shows what holds them")
    chosen = set(groups) if isinstance(wanted, str) and wanted == "auto" else named_groups(groups, wanted)
    held = _ignored(groups, model, ignore)
    free = [g for name, g in groups.items() if name in chosen and name not in held and not g.frozen]
    if not free:
        raise InputError(f"at least one group must be left to cut, but groups={_short(wanted)} and "
                         f"ignore={_short(ignore)} leave none of {len(groups)}; ignore less or name more groups")
    return free


def named_groups(groups: Mapping[str, CouplingGroup], wanted: Wanted) -> set[str]:
    """The names of the groups that ``wanted`` means: names, glob patterns over layers, or groups; not ``"auto"``.

    Raises:
        InputError: a name, pattern or object that matches nothing, or only frozen groups.
    """
    chosen: set[str] = set()
    for item in [wanted] if isinstance(wanted, str | CouplingGroup) else _listed(wanted, "groups"):
        if isinstance(item, CouplingGroup):
            names = {item.name} if _same(groups.get(item.name), item) else set()
        elif isinstance(item, str):
            names = {item} if item in groups else {n for n, g in groups.items() if _matches(g, item)}
        else:
            raise InputError(f"groups must be names, patterns or CouplingGroup objects, got {type(item).__name__}; "
                             'write groups=["layer1.*"] or groups="auto"')
        if not names and isinstance(item, CouplingGroup):
            raise InputError(f"groups must come from this model's coupling, but {item!r} does not; take it from "
                             "fxprune.analyze(model).groups")
        if not names:
            raise InputError(unknown("group or layer", item, {*groups, *_layers(groups)}))
        if all(groups[name].frozen for name in names):
            raise InputError(f"groups must be prunable, but {_short(item)} is frozen"
                             f"{_reasons(groups[n] for n in names)}; leave it out")
        chosen |= names
    return chosen


def _matches(group: CouplingGroup, pattern: str) -> bool:
    # A layer's name stands for the channels that it puts out: those that it only reads are its predecessor's.
    layers = {member.layer for member in group.members if member.role != CONSUMER}
    return fnmatchcase(group.name, pattern) or any(fnmatchcase(layer, pattern) for layer in layers)


def _same(mine: CouplingGroup | None, other: CouplingGroup) -> bool:
    places = [{(m.name, m.dim, m.role) for m in g.members} for g in (mine, other) if g is not None]
    return mine is not None and mine.size == other.size and places[0] == places[1]


def _layers(groups: Mapping[str, CouplingGroup]) -> set[str]:
    return {member.layer for group in groups.values() for member in group.members if member.role != CONSUMER}


def _ignored(groups: Mapping[str, CouplingGroup], model: torch.nn.Module, ignore: Ignored) -> set[str]:
    """Names of the groups that have a member in what is ignored."""
    roots, shared = _roots(model, ignore), aliases(model)
    return {group.name for group in groups.values()
            if any(_below(name, root) for m in group.members for name in shared.get(m.name, (m.name,))
                   for root in roots)}


def ignored_branches(branches: Mapping[str, Branch], model: torch.nn.Module, ignore: Ignored) -> set[str]:
    """Names of the branches with a parameter or buffer in what is ignored."""
    roots = _roots(model, ignore)
    return {name for name, branch in branches.items()
            if any(_below(tensor, root) for tensor in branch.tensors for root in roots)}


def _roots(model: torch.nn.Module, ignore: Ignored) -> set[str]:
    """The modules and parameters that are ignored."""
    items = [ignore] if isinstance(ignore, str | torch.nn.Module) else _listed(ignore, "ignore")
    if not items:
        return set()
    modules = dict(model.named_modules(remove_duplicate=False))
    tensors = [name for name, _ in named_tensors(model)]
    # The places an ignored name may stand for: modules, and parameters of one's own.
    places = {*modules, *tensors}
    roots: set[str] = set()
    for item in items:
        found = _places(item, modules, places)
        if not any(_below(name, root) for name in tensors for root in found):
            raise InputError(f"ignore must name modules that hold parameters, but {_short(item)} holds none; name the "
                             "layer whose channels are to stay")
        roots |= found
    return roots


def _places(item: str | torch.nn.Module, modules: Mapping[str, torch.nn.Module], places: set[str]) -> set[str]:
    if isinstance(item, torch.nn.Module):
        found = {name for name, module in modules.items() if module is item}
        if not found:
            raise InputError(f"ignore must hold modules of this model, but the {type(item).__name__} given is not part "
                             "of it (a copy?); take it from model.get_submodule(...), or give its name")
        return found
    if not isinstance(item, str):
        raise InputError(f"ignore must hold module names, patterns or modules, got {type(item).__name__}; write "
                         'ignore=["fc"]')
    found = {item} if item in places else {name for name in places if name and fnmatchcase(name, item)}
    if not found:
        raise InputError(unknown("module", item, filter(None, modules)))
    return found


def _below(name: str, root: str) -> bool:
    return not root or name == root or name.startswith(f"{root}.")


def _listed(items: object, what: str) -> list[Any]:
    if not isinstance(items, Iterable):
        raise InputError(f"{what} must be a name or a list of names, got {type(items).__name__}")
    return list(items)


def _short(value: object) -> str:
    text = type(value).__name__ if isinstance(value, torch.nn.Module) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _reasons(groups: Iterable[CouplingGroup]) -> str:
    reasons = list(dict.fromkeys(str(group.frozen) for group in groups if group.frozen))
    return f" ({'; '.join(reasons[:3])}{'; …' if len(reasons) > 3 else ''})" if reasons else ""
