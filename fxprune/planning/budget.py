"""From scores and a budget to the channels that are kept.

Each group's channels are laid out in the order in which they would go: ascending score, and of equal channels the last
one first. They go in *blocks*: single channels, or, with ``round_to=r``, r at a time (a first, smaller block brings an
odd width down to a multiple of r). All blocks of all groups are merged into one list, by

    scope="global"      the block's mean score, divided by the mean score of its group;
    scope="absolute"    the block's mean score as it is: for scores that mean the same everywhere, such as damage;
    scope="isomorphic"  the fraction that is gone, once it is removed, of all groups of like shape, whose channels are
                        ranked together (Fang et al., "Isomorphic Pruning for Vision Models", ECCV 2024);
    scope="uniform"     the fraction of its group that is gone once it is removed, so that all groups shrink alike.

With ``per="macs"`` (or ``"params"``) that score is divided by what a channel of its group saves: damage per what it
buys.

A budget removes the shortest prefix of that list that fits. Costs only fall along the list, so the prefix is found by
bisection; it is maximal, because putting back its last block would exceed; and plans at smaller budgets are subsets,
because they are longer prefixes of the same list.

Groups smaller than r are not cut in multiples of r: they come last in the list, one channel at a time, and are touched
only if nothing else reaches the budget.

This file knows nothing of criteria: a score is a number.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from numbers import Real

import numpy as np

from fxprune.errors import BudgetError, unknown
from fxprune.ir.costs import Costs, Count
from fxprune.planning.scopes import PRICES, SCOPES, Blocks, Going, keys, saved_by_one

# The least and the most of a group that is kept.
Bounds = tuple[Fraction, Fraction]
# How many steps a group must have, lest they are eased.
CHOICES = 4
KINDS = ("macs", "params", "channels", "threshold", "latency", "latency_ms")


@dataclass(frozen=True)
class Budget:
    """One target and how to reach it. Make it with `Budget.of`, which checks.

    Args:
        kind: ``"macs"``, ``"params"``, ``"channels"`` or ``"latency"`` (the fraction kept), ``"threshold"`` (a score)
            or ``"latency_ms"``.
        value: the fraction, exactly what was written (0.1 is one tenth), or the threshold.
        scope: one of ``SCOPES``; ``channels`` and ``threshold`` cut each group on its own either way.
        round_to: widths are multiples of it, in groups of that size or more.
        min_channels: the fewest channels that a group may keep.
        per: ``"macs"`` or ``"params"``: what scores are priced in; None for as they are.
        bounds: the least and the most that is kept of some groups, by name; ``channels`` keeps the most.
        eased: ``round_to`` is what a processor likes and nobody demands: `step_within` says what it is in a group.
    """

    kind: str
    value: Fraction
    scope: str = "global"
    round_to: int = 1
    min_channels: int = 1
    per: str | None = None
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    eased: bool = False

    @classmethod
    def of(cls, *, macs: float | None = None, params: float | None = None, channels: float | None = None,
           threshold: float | None = None, latency: float | None = None, latency_ms: float | None = None,
           scope: str = "global", round_to: int = 1, min_channels: int = 1, per: str | None = None) -> "Budget":
        """Check the arguments of a call.

        Raises:
            BudgetError: none or several targets, a fraction outside (0, 1], a bad scope or count.

        >>> Budget.of(macs=0.1).value
        Fraction(1, 10)
        """
        values = (macs, params, channels, threshold, latency, latency_ms)
        given = {k: v for k, v in zip(KINDS, values, strict=True) if v is not None}
        if len(given) != 1:
            got = " and ".join(f"{k}={v}" for k, v in given.items()) or "none"
            raise BudgetError("exactly one of macs=, params=, channels=, threshold=, latency= and latency_ms= must be "
                              f"given, got {got}; write macs=0.5 to keep half of the multiply-accumulates (macs= and "
                              "params= may stand beside a latency)")
        if not isinstance(scope, str) or scope not in SCOPES:
            raise BudgetError(unknown("scope", scope, SCOPES))
        if per is not None and (not isinstance(per, str) or per not in PRICES):
            raise BudgetError(unknown("price", per, PRICES))
        if per is not None and (scope == "uniform" or given.keys() - set(PRICES)):
            what = 'scope="uniform"' if scope == "uniform" else f"{next(iter(given))}="
            raise BudgetError(f"per={per!r} prices scores that are compared across groups, and {what} compares none; "
                              'write macs=0.5, scope="absolute", or leave per= out')
        for name, count in (("round_to", round_to), ("min_channels", min_channels)):
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
                raise BudgetError(f"{name} must be an integer >= 1, got {count!r}; write {name}=1")
        (kind, value), = given.items()
        return cls(kind, _exact(kind, value), scope, int(round_to), int(min_channels), per)


def cut(budget: Budget, costs: Costs, sizes: Mapping[str, int], scores: Mapping[str, np.ndarray],
        shapes: Mapping[str, Hashable] | None = None, copies: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """The kept channels of every group in ``scores``: ordinals, ascending.

    Args:
        budget: the target.
        costs: what widths cost.
        sizes: the size of every group of ``costs.groups``, those that stay whole included.
        scores: one voted score per channel, for the groups that may be cut; finite and non-negative.
        shapes: what groups of like shape have in common, for ``scope="isomorphic"``.
        copies: for how many groups a name stands that are cut as one; 1 where it is not in there.

    Raises:
        BudgetError: the target is below what these groups can reach.

    >>> params = Count(np.array([9]), np.array([[1]]), np.array([1, 0]), np.array([1]), np.array([0]), np.array([1]))
    >>> costs = Costs(("conv",), params, params)
    >>> cut(Budget.of(params=0.7), costs, {"conv": 4}, {"conv": np.array([0.3, 0.1, 0.2, 0.1])})
    {'conv': array([0, 2])}
    """
    return cut_with_branches(budget, Going(lambda names: costs), sizes, scores, shapes, copies)[0]


def cut_with_branches(budget: Budget, going: Going, sizes: Mapping[str, int], scores: Mapping[str, np.ndarray],
                      shapes: Mapping[str, Hashable] | None = None, copies: Mapping[str, int] | None = None,
                      ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """As `cut`, with residual branches that may go whole: what is kept of the groups, and which more branches go.

    Args:
        going: the branches, and what is left to pay for without some of them.
    """
    ranked = {name: ranking(score) for name, score in scores.items()}
    if budget.kind in ("macs", "params"):
        removed, gone = _fitting_prefix(budget, going, sizes, scores, ranked, shapes or {}, copies or {})
    else:
        removed, gone = {name: len(score) - _own_width(budget, name, score) for name, score in scores.items()}, ()
    return {name: np.sort(order[removed[name]:]) for name, order in ranked.items()}, gone


def ranking(score: np.ndarray) -> np.ndarray:
    """Channels in the order in which they go: ascending score; of equal ones the last first, since an ordered network
    keeps what matters in front, and a trained one has many exact zeros.

    >>> ranking(np.array([0.3, 0.0, 0.2, 0.0])).tolist()
    [3, 1, 2, 0]
    """
    return np.lexsort((-np.arange(len(score)), score))


def best(score: np.ndarray, width: int) -> np.ndarray:
    """So many of the channels that go last: ordinals, ascending."""
    return np.sort(ranking(score)[len(score) - width:])


def narrowest(size: int, budget: Budget, name: str = "") -> int:
    """The fewest channels that a group of this size and name may keep.

    >>> budget = Budget.of(macs=0.5, round_to=8, min_channels=10)
    >>> [narrowest(size, budget) for size in (64, 20, 12, 9, 4)]
    [16, 16, 12, 9, 4]
    """
    step = step_of(size, budget)
    least = max(budget.min_channels, _share(size, budget.bounds[name][0]) if name in budget.bounds else 0)
    floor = -(-least // step) * step
    return floor if floor <= size else size


def widest(size: int, budget: Budget, name: str) -> int:
    """The most channels that a group may keep: all, in multiples, but where it is bounded."""
    most = budget.bounds[name][1] if name in budget.bounds else Fraction(1)
    return _rounded(_share(size, most), size, budget, name)


def _own_width(budget: Budget, name: str, score: np.ndarray) -> int:
    """What ``channels=`` and ``threshold=`` leave of one group, rounded up to the multiple."""
    if budget.kind == "channels":
        most = budget.bounds[name][1] if name in budget.bounds else budget.value
        wanted = _share(len(score), most)
    else:
        wanted = int(np.count_nonzero(score >= float(budget.value)))
    return _rounded(wanted, len(score), budget, name)


def _rounded(wanted: int, size: int, budget: Budget, name: str) -> int:
    step, floor = step_of(size, budget), narrowest(size, budget, name)
    # An odd rest never fits a multiple, unless min_channels wants the group whole.
    ceiling = floor if floor == size else size // step * step
    return max(min(-(-wanted // step) * step, ceiling), floor)


def _share(size: int, fraction: Fraction) -> int:
    return -(-size * fraction.numerator // fraction.denominator)


def step_of(size: int, budget: Budget) -> int:
    """How many channels go at a time in a group of this size."""
    if budget.eased:
        return step_within(size, budget.round_to)
    return budget.round_to if size >= budget.round_to else 1


def step_within(size: int, step: int) -> int:
    """How many channels go at a time in a group of this size, where processors like multiples of a step: half of it, a
    quarter and so on in groups that would have too few to choose from; 1 in those that are smaller than one.

    >>> [step_within(size, 16) for size in (64, 48, 24, 16, 12)]
    [16, 8, 4, 4, 1]
    """
    if size < step:
        return 1
    while step > 1 and size < CHOICES * step:
        step //= 2
    return step


@dataclass(frozen=True, eq=False)
class _Removals:
    """What goes, in that order: blocks of channels, with their group's place in ``costs.groups`` and how many they are
    (int64 [B]), and branches, at place -1 - their own in ``branches``."""

    group: np.ndarray
    channels: np.ndarray
    full: np.ndarray
    must: int
    branches: tuple[str, ...] = ()

    def widths(self, count: int) -> np.ndarray:
        """Width of every group once so many are gone (int64 [G])."""
        group, channels = self.group[:count], self.channels[:count]
        gone = np.bincount(group[group >= 0], weights=channels[group >= 0], minlength=len(self.full))
        return self.full - gone.astype(np.int64)

    def gone(self, count: int) -> tuple[str, ...]:
        """The branches that are gone by then."""
        return tuple(self.branches[-1 - place] for place in self.group[:count].tolist() if place < 0)


def _fitting_prefix(budget: Budget, going: Going, sizes: Mapping[str, int], scores: Mapping[str, np.ndarray],
                    ranked: Mapping[str, np.ndarray], shapes: Mapping[str, Hashable], copies: Mapping[str, int],
                    ) -> tuple[dict[str, int], tuple[str, ...]]:
    """How many channels each group loses, and which branches go, so that the cost fits: the shortest prefix, by
    bisection."""
    whole = going.costs(())
    removals = _removals(budget, whole, sizes, scores, ranked, shapes, copies, going.worth)
    before = getattr(whole, budget.kind)(removals.full)
    target = before * budget.value.numerator // budget.value.denominator

    def left(count: int) -> int:
        cost: Count = getattr(going.within(removals.gone(count)), budget.kind)
        return cost(removals.widths(count))

    low, high = removals.must, len(removals.group)
    least = left(high)
    if least > target:
        raise BudgetError(_unreachable(budget, before, least, len(scores)))
    while low < high:
        middle = (low + high) // 2
        if left(middle) <= target:
            high = middle
        else:
            low = middle + 1
    widths = dict(zip(whole.groups, removals.widths(low).tolist(), strict=True))
    return {name: sizes[name] - widths[name] for name in scores}, removals.gone(low)


def _removals(budget: Budget, costs: Costs, sizes: Mapping[str, int], scores: Mapping[str, np.ndarray],
              ranked: Mapping[str, np.ndarray], shapes: Mapping[str, Hashable], copies: Mapping[str, int],
              worth: Mapping[str, float]) -> _Removals:
    """All blocks of all groups, and the branches, merged. The first ``must`` of them go at any budget."""
    full = np.array([sizes[name] for name in costs.groups], np.int64)
    blocks = [found for name, score in scores.items()
              if (found := blocks_of(name, score[ranked[name]], budget, copies.get(name, 1))) is not None]
    places = {name: place for place, name in enumerate(costs.groups)}
    prices = saved_by_one(costs, budget.per, full) if budget.per else {}
    last = sorted(worth, key=worth.__getitem__)
    none, whole = np.zeros(0, np.int64), np.arange(1, len(last) + 1)
    group = np.concatenate([none, *(np.full(len(b.ends), places[b.group]) for b in blocks), -whole])
    phases = np.concatenate([none, *(_phases(block, budget) for block in blocks), np.ones(len(last), np.int64)])
    key = np.concatenate([none, *(keys(blocks, budget.scope, prices, shapes) if blocks else []),
                          [worth[name] for name in last]])
    gone = np.concatenate([none, *(block.gone for block in blocks), whole / max(len(last), 1)])
    # Equal keys (batch norm scales that are all 1): all groups alike, so that none is emptied before the next is cut.
    order = np.lexsort((group, gone, key, phases))
    channels = np.concatenate([none, *(block.channels for block in blocks), np.zeros(len(last), np.int64)])
    return _Removals(group[order], channels[order], full, int((phases == 0).sum()), tuple(last))


def blocks_of(name: str, score: np.ndarray, budget: Budget, copies: int = 1) -> Blocks | None:
    """The blocks in which a group's channels go, given their scores, ascending; None where none may go. ``copies`` of
    it lose them together."""
    size, step = len(score), step_of(len(score), budget)
    removable = size - narrowest(size, budget, name)
    if not removable:
        return None
    ends = np.arange(size % step or step, removable + 1, step)
    return Blocks(name, score, np.concatenate([[0], ends[:-1]]), ends, copies)


def _phases(block: Blocks, budget: Budget) -> np.ndarray:
    """0: must go. 1: in order. 2: groups too small for the multiple, the last resort."""
    phases = np.full(len(block.ends), 1 if len(block.score) >= budget.round_to else 2)
    phases[:forced(block, budget)] = 0
    return phases


def forced(block: Blocks, budget: Budget) -> int:
    """How many of a group's first blocks go at any budget: an odd rest of a multiple, and what a bound forbids."""
    return int((len(block.score) - block.starts > widest(len(block.score), budget, block.group)).sum())


def _exact(kind: str, value: float) -> Fraction:
    """The number as it was written, checked."""
    number = isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_)
    try:
        exact = Fraction(str(value)) if number else None
    except ValueError:
        exact = None
    if kind == "latency_ms":
        if exact is None or exact <= 0:
            raise BudgetError(f"latency_ms must be milliseconds above zero, got {value!r}; write latency_ms=12.0")
        return exact
    if kind == "threshold":
        if exact is None or exact < 0:
            raise BudgetError(f"threshold must be a finite number >= 0, got {value!r}; channels whose voted score is "
                              "below it are removed: write threshold=1e-3")
        return exact
    if exact is None or not 0 < exact <= 1:
        hint = f"{kind}={float(exact) / 100:g}" if exact is not None and 5 <= exact <= 100 else f"{kind}=0.5"
        raise BudgetError(f"{kind} must be the fraction kept, in (0, 1], got {value!r}; write {hint}")
    return exact


def _unreachable(budget: Budget, before: int, least: int, groups: int) -> str:
    # Rounded up to four digits, so that the value that is named can be reached.
    share, scale = Fraction(least, before), 10 ** 4
    while share * scale < 1000 and scale < 10 ** 15:
        scale *= 10
    reachable = float(Fraction(-(-share.numerator * scale // share.denominator), scale))
    limits = f"min_channels={budget.min_channels}, round_to={budget.round_to}, {groups} prunable groups"
    limits += f", {len(budget.bounds)} of them bounded by channels=" if budget.bounds else ""
    return (f"{budget.kind}={float(budget.value):g} cannot be reached: the smallest reachable value is "
            f"{budget.kind}={reachable:g} ({least:,} of {before:,}, with {limits}); ask for at least that, lower "
            "min_channels or round_to, or let more groups be cut with groups= and ignore=")
