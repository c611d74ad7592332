"""Groups as stairs that are gone down step by step, and what stands where: the state of a cut within a time."""

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fxprune.ir.costs import Count
from fxprune.planning.budget import Budget, blocks_of, forced, ranking
from fxprune.planning.scopes import keys

# Seconds, relative to the whole, below which nothing is saved.
NOTHING = 1e-9


class Term(Protocol):
    """The time of one layer.

    Attributes:
        groups: the places of the groups whose widths it depends on.
    """

    @property
    def groups(self) -> tuple[int, ...]: ...

    def __call__(self, widths: np.ndarray) -> np.ndarray:
        """Seconds, float64 [...], at widths int64 [..., G]."""
        ...


@dataclass(frozen=True, eq=False)
class Prices:
    """What widths cost in time: base + scale · Σ term.

    Args:
        terms: one for each layer.
        base: seconds that no width changes.
        scale: how much slower layers are within the model than alone.
    """

    terms: Sequence[Term]
    base: float = 0.0
    scale: float = 1.0

    def __call__(self, widths: np.ndarray) -> float:
        """Seconds at these widths (int64 [G])."""
        return self.base + self.scale * float(sum(float(term(widths)) for term in self.terms))


@dataclass(frozen=True)
class Bound:
    """A count that may not be exceeded."""

    count: Count
    most: float


@dataclass(frozen=True, eq=False)
class Stairs:
    """One group: ``ends[j]`` channels are gone after j steps, at a harm of ``harm[j]``, in scores as they are compared.

    A group that is smaller than ``round_to`` is ``last``: it is cut only where nothing else reaches the time.
    """

    name: str
    place: int
    size: int
    ends: np.ndarray
    harm: np.ndarray
    last: bool

    def gone(self, state: "Standing") -> int:
        """How many channels have gone."""
        return int(self.ends[state.level[self.place]])


def stairs_of(groups: Sequence[str], scores: Mapping[str, np.ndarray], budget: Budget, shapes: Mapping[str, Hashable],
              copies: Mapping[str, int]) -> list[Stairs]:
    """Of the groups that may lose something. What a block is worth is what it is worth to other budgets."""
    blocks = [block for name, score in scores.items()
              if (block := blocks_of(name, score[ranking(score)], budget, copies.get(name, 1))) is not None]
    stairs: list[Stairs] = []
    for block, key in zip(blocks, keys(blocks, budget.scope, {}, shapes), strict=True):
        size, harm = len(block.score), np.cumsum(key * block.channels * block.copies)
        gone = forced(block, budget)
        ends, harm = np.append(0, block.ends)[gone:], np.append(0.0, harm)[gone:]
        stairs.append(Stairs(block.group, groups.index(block.group), size, ends, harm, size < budget.round_to))
    return stairs


@dataclass(eq=False)
class Standing:
    """Where the cut stands: how many steps each group has gone, and what that costs."""

    prices: Prices
    limit: float
    bounds: Sequence[Bound]
    stairs: list[Stairs]
    widths: np.ndarray
    level: dict[int, int] = field(default_factory=dict)
    version: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reach: dict[int, list[Term]] = {}
        for term in self.prices.terms:
            for place in term.groups:
                self.reach.setdefault(place, []).append(term)
        self.level, self.version = ({stairs.place: 0 for stairs in self.stairs} for _ in range(2))
        for stairs in self.stairs:
            self.widths[stairs.place] = stairs.size - int(stairs.ends[0])
        self.seconds = self.prices(self.widths)
        self.counts = [bound.count(self.widths) for bound in self.bounds]

    def copy(self) -> "Standing":
        """Another one that stands where this one does."""
        other = copy.copy(self)
        other.level, other.version = dict(self.level), dict(self.version)
        return other

    @property
    def harm(self) -> float:
        """The score that has gone."""
        return float(sum(stairs.harm[self.level[stairs.place]] for stairs in self.stairs))

    def unmet(self) -> tuple[bool, ...]:
        """Of the time and of each bound, whether it is still exceeded."""
        return (self.seconds > self.limit, *(n > bound.most for n, bound in zip(self.counts, self.bounds, strict=True)))

    def at(self, stairs: Stairs, levels: np.ndarray) -> np.ndarray:
        """The widths with this group at other levels, int64 [n, G]."""
        widths = np.repeat(self.widths[None], len(levels), axis=0)
        widths[:, stairs.place] = stairs.size - stairs.ends[levels]
        return widths

    def saved(self, stairs: Stairs, widths: np.ndarray) -> np.ndarray:
        """Seconds that these widths, which differ in this group alone, save (float64 [n])."""
        terms = self.reach.get(stairs.place, ())
        drop = sum((term(self.widths[None]) - term(widths) for term in terms), np.zeros(len(widths)))
        return self.prices.scale * drop

    def gain(self, stairs: Stairs, levels: np.ndarray) -> np.ndarray:
        """The sum of the shares by which the bounds that are exceeded come nearer."""
        widths, unmet = self.at(stairs, levels), self.unmet()
        gain = self.saved(stairs, widths) / self.limit * unmet[0]
        for bound, now, wanted in zip(self.bounds, self.counts, unmet[1:], strict=True):
            if wanted:
                gain = gain + (now - np.array([bound.count(row) for row in widths])) / max(bound.most, 1)
        return gain

    def move(self, stairs: Stairs, level: int) -> None:
        """Put a group at another level."""
        widths = self.at(stairs, np.array([level]))
        self.seconds -= float(self.saved(stairs, widths)[0])
        self.widths, self.level[stairs.place] = widths[0], level
        self.counts = [bound.count(self.widths) for bound in self.bounds]
        touched = {place for term in self.reach.get(stairs.place, ()) for place in term.groups}
        for place in (touched | {stairs.place}) & self.version.keys():
            self.version[place] += 1

    def fits(self) -> bool:
        """Whether nothing is exceeded."""
        return not any(self.unmet())

    def dead(self, stairs: Stairs) -> int:
        """Further channels whose removal saves no time."""
        gone = stairs.size - int(self.widths[stairs.place])
        levels = np.flatnonzero(stairs.ends > gone)
        idle = self.saved(stairs, self.at(stairs, levels)) <= NOTHING * self.limit
        count = len(idle) if idle.all() else int(np.argmin(idle))
        return int(stairs.ends[levels[count - 1]]) - gone if count else 0
