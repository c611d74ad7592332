"""One width for groups that play the same role in repeated blocks.

A role is what a group is called but for the numbers of its blocks, at one size: ``layers.0.mlp.fc1`` and
``layers.7.mlp.fc1`` are both ``layers.*.mlp.fc1``. A number is that of a block where it is a whole component of the
path, or where it ends the name of a module that holds several layers (``denselayer3.conv1``; not ``cv1.conv``, which is
the first of several layers of one block).

The groups of a role are cut as if they were one: its j-th worst channel is the j-th worst of each of them, scores what
these score on average, and costs what they cost together. Costs are closed forms of the groups' widths, so those of the
roles' widths are the same forms with one index in the place of another; every budget goes through the cut that it
always goes through. Groups that share a role with none are cut as they are.
"""

import re
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fxprune.errors import BudgetError, InputError
from fxprune.ir.costs import Costs, Count
from fxprune.ir.groups import CARRIER, CouplingGroup
from fxprune.planning.budget import Bounds, Budget, best
from fxprune.planning.stairs import Prices, Term


@dataclass(frozen=True, eq=False)
class Roles:
    """Which groups get one width. A role is called like the first of its groups.

    Args:
        groups: role -> its groups' names, roles in the order of their first groups.
        sizes: role -> channels of each of its groups.
        place: the role's place, for every group of the coupling in its order (int64 [G]).
    """

    groups: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, int]
    place: np.ndarray

    @classmethod
    def of(cls, groups: Mapping[str, CouplingGroup], uniform: bool) -> "Roles":
        """The roles of all groups of a coupling; every group's own where ``uniform`` is not asked for.

        Raises:
            InputError: ``uniform`` is neither True nor False.
        """
        if not isinstance(uniform, bool):
            raise InputError(f"uniform must be True or False, got {uniform!r}; write uniform=True")
        found: dict[Hashable, list[str]] = {}
        blocks = _blocks(groups.values()) if uniform else set()
        for name, group in groups.items():
            found.setdefault((_but_for_numbers(name, blocks), group.size) if uniform else name, []).append(name)
        places = {name: place for place, names in enumerate(found.values()) for name in names}
        return cls({names[0]: tuple(names) for names in found.values()},
                   {names[0]: groups[names[0]].size for names in found.values()},
                   np.array([places[name] for name in groups], np.int64))

    @property
    def copies(self) -> dict[str, int]:
        """How many groups each role has."""
        return {role: len(names) for role, names in self.groups.items()}

    @property
    def widths(self) -> np.ndarray:
        """The width of every role while nothing is cut (int64 [R])."""
        return np.array(list(self.sizes.values()), np.int64)

    def free(self, chosen: Sequence[CouplingGroup], groups: Mapping[str, CouplingGroup]) -> list[CouplingGroup]:
        """Those of the chosen groups that can be cut: of roles that are chosen whole. A warning names what is held.

        Raises:
            InputError: none is left.
        """
        listed = {group.name for group in chosen}
        held = {role: missing for role, names in self.groups.items() if listed & set(names)
                and (missing := [name for name in names if name not in listed])}
        if held:
            warnings.warn(f"uniform=True keeps {_words(held, groups)}", stacklevel=4)
        whole = {name for role in held for name in self.groups[role]}
        left = [group for group in chosen if group.name not in whole]
        if not left:
            raise InputError("at least one group must be left to cut, and with uniform=True none is: a role is cut "
                             "only where all of its groups may be; name more groups, ignore less, or drop uniform=True")
        return left

    def scores(self, scores: Mapping[str, np.ndarray], budget: Budget) -> dict[str, np.ndarray]:
        """One score per channel of each role whose groups all have scores: the mean of its groups' (in units of each
        group's mean where the scope compares so); their highest where a threshold cuts, so that no channel goes that
        reaches it."""
        found = {}
        for role, names in self.groups.items():
            if all(name in scores for name in names):
                found[role] = scores[role] if len(names) == 1 else _together([scores[name] for name in names], budget)
        return found

    def bounds(self, bounds: Mapping[str, Bounds]) -> dict[str, Bounds]:
        """Of each role, what all of its bounded groups allow.

        Raises:
            BudgetError: they contradict each other.
        """
        found = {}
        for role, names in self.groups.items():
            own = [bounds[name] for name in names if name in bounds]
            if own:
                least, most = max(low for low, _ in own), min(high for _, high in own)
                if least > most:
                    raise BudgetError(f"uniform=True gives {role!r} and its like one width, and channels= asks for at "
                                      f"least {float(least):g} and at most {float(most):g} of them")
                found[role] = least, most
        return found

    def shapes(self, shapes: Mapping[str, Hashable]) -> dict[str, Hashable]:
        """Of each role, that of its first group."""
        return {role: shapes[role] for role in self.groups if role in shapes}

    def count(self, count: Count) -> Count:
        """The same count, of the roles' widths."""
        return replace(count, group=self.place[count.group])

    def costs(self, costs: Costs) -> Costs:
        """The same costs, of the roles' widths."""
        return Costs(tuple(self.groups), self.count(costs.macs), self.count(costs.params))

    def prices(self, prices: Prices) -> Prices:
        """The same times, of the roles' widths."""
        return replace(prices, terms=[_RoleTerm(term, self.place) for term in prices.terms])

    def kept(self, kept: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is kept of every group: its own best channels, as many as its role keeps. Ordinals, ascending."""
        return {name: best(scores[name], len(channels)) for role, channels in kept.items()
                for name in self.groups[role]}

    def same_widths(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Widths of some groups, as those of all groups of their roles.

        Raises:
            InputError: two groups of a role are to have different widths.
        """
        found: dict[str, int] = {}
        for names in self.groups.values():
            asked = {name: widths[name] for name in names if name in widths}
            if len(set(asked.values())) > 1:
                (one, a), (other, b) = next((x, y) for x in asked.items() for y in asked.items() if x[1] != y[1])
                raise InputError(f"uniform=True gives {one!r} and {other!r} one width, and widths= names {a} and {b}; "
                                 "name one, or drop uniform=True")
            if asked:
                found |= dict.fromkeys(names, next(iter(asked.values())))
        return found


@dataclass(frozen=True, eq=False)
class _RoleTerm:
    """The time of a layer, of the roles' widths."""

    term: Term
    place: np.ndarray

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(int(self.place[group]) for group in self.term.groups))

    def __call__(self, widths: np.ndarray) -> np.ndarray:
        return self.term(widths[..., self.place])


def _together(scores: list[np.ndarray], budget: Budget) -> np.ndarray:
    ascending = np.stack([np.sort(score) for score in scores])
    if budget.kind == "threshold":
        return np.asarray(ascending.max(axis=0))
    peaks = ascending[:, -1:]
    if budget.scope == "global":
        # By the peak first, as `Blocks.means`; a group of zeros stays zero.
        ascending = ascending / np.where(peaks > 0, peaks, 1)
        means = ascending.mean(axis=1, keepdims=True)
        ascending = ascending / np.where(means > 0, means, 1)
    return np.asarray((ascending / len(ascending)).sum(axis=0))


def _blocks(groups: Iterable[CouplingGroup]) -> set[str]:
    """Modules that hold at least two layers which make or read channels."""
    layers = {member.layer for group in groups for member in group.members if member.role != CARRIER}
    holds: dict[str, set[str]] = {}
    for layer in layers:
        names = layer.split(".")
        for end in range(1, len(names)):
            holds.setdefault(".".join(names[:end]), set()).add(layer)
    return {name for name, found in holds.items() if len(found) > 1}


def _but_for_numbers(path: str, blocks: set[str]) -> str:
    """The path with ``*`` in the place of each number of a block.

    >>> _but_for_numbers("model.3.stage2.conv1", {"model.3.stage2"}), _but_for_numbers("cv1.conv", set())
    ('model.*.stage*.conv1', 'cv1.conv')
    >>> _but_for_numbers("features.4#2", set())
    'features.*#2'
    """
    names = path.split(".")
    return ".".join(re.sub(r"\d+$", "*", name) if ".".join(names[:end]) in blocks else re.sub(r"^\d+(?=$|#)", "*", name)
                    for end, name in enumerate(names, 1))


def _words(held: Mapping[str, list[str]], groups: Mapping[str, CouplingGroup]) -> str:
    said = [f"{role!r} and its like whole, because {names[0]!r} is "
            + (f"frozen: {groups[names[0]].frozen}" if groups[names[0]].frozen else "not to be cut")
            for role, names in held.items()]
    return "; ".join(said[:3]) + (f"; and {len(said) - 3} more roles" if len(said) > 3 else "")
