"""From scores and the price of widths to channels that are kept within a time.

A layer's time depends on the widths of several groups (in and out), and falls in stairs. So a knapsack over independent
items, as in HALP (Shen et al. 2021), is not exact: what a step saves depends on what the neighbours have lost
by then. Here

* a step of a group is priced as the drop in time over *all* layers that its width reaches, at the others' present
  widths;
* steps that save nothing are merged with those after them until they do: of all ways to go on from the present width,
  a group offers the one that costs the least score per second saved, the next edge of the lower hull of its stairs;
* the least of these goes first, from a heap that is priced lazily: a group is priced anew when it comes up and a
  neighbour has changed since;
* in the end, steps that still fit are given back, the dearest in score first, so that no step more would fit; and
  where that leaves time, one step is given back that does not fit, and smaller ones of other groups go for it, as long
  as that keeps more score.

Bounds on MACs and parameters count alike: what is saved is then the sum of the shares by which each bound that is not
met yet comes nearer.

This file knows groups, scores and a price; it knows nothing of operators, of clocks or of tables.
"""

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fxprune.errors import BudgetError
from fxprune.planning.budget import Budget, best
from fxprune.planning.stairs import NOTHING, Bound, Prices, Stairs, Standing, stairs_of

# Steps that a group looks ahead for one that saves time, before it looks at all of them.
AHEAD = 48
# The share of the time that may be left over, and how often a step is exchanged for others to use more of it.
SLACK, EXCHANGES = 0.005, 4


@dataclass(frozen=True, eq=False)
class TimedCut:
    """What is kept within a time.

    Args:
        kept: group name -> ordinals, ascending.
        seconds: predicted.
        dead: group name -> further channels whose removal would save nothing, so that they stay.
    """

    kept: Mapping[str, np.ndarray]
    seconds: float
    dead: Mapping[str, int]


def cut_to_time(limit: float, prices: Prices, budget: Budget, groups: Sequence[str], sizes: Mapping[str, int],
                scores: Mapping[str, np.ndarray], bounds: Sequence[Bound] = (),
                shapes: Mapping[str, Hashable] | None = None, copies: Mapping[str, int] | None = None) -> TimedCut:
    """The kept channels of every group in ``scores``, within a time.

    Args:
        limit: seconds.
        prices: of widths.
        budget: its ``scope``, ``round_to`` and ``min_channels``.
        groups: all names, in the order in which widths are given to ``prices``.
        sizes: of all groups.
        scores: one voted score per channel, for the groups that may be cut.
        bounds: on other counts.
        shapes: what groups of like shape have in common, for the scope ``"isomorphic"``.
        copies: for how many groups a name stands that are cut as one; 1 where it is not in there.

    Raises:
        BudgetError: the time, or a bound, is below what these groups can reach.

    >>> class Layer:
    ...     groups = (0,)
    ...     def __call__(self, widths):
    ...         return np.ceil(widths[..., 0] / 4)
    >>> found = cut_to_time(1.5, Prices([Layer()]), Budget.of(macs=0.5), ("conv",), {"conv": 8},
    ...                     {"conv": np.arange(8.0)})
    >>> found.kept["conv"].tolist(), found.seconds, found.dead  # the fourth step is the first that saves anything
    ([4, 5, 6, 7], 1.0, {'conv': 3})
    """
    def stairs_within(budget: Budget) -> list[Stairs]:
        return stairs_of(groups, scores, budget, shapes or {}, copies or {})

    state = Standing(prices, limit, bounds, stairs_within(budget), np.array([sizes[name] for name in groups], np.int64))
    if budget.scope == "uniform":
        _cut_alike(state)
    else:
        _cut_dearest_last(state)
        _give_back(state)
        state = _exchanged(state)
    kept = {name: np.arange(len(score)) for name, score in scores.items()}
    kept |= {stairs.name: best(scores[stairs.name], stairs.size - stairs.gone(state)) for stairs in state.stairs}
    # What saves nothing saves nothing beyond the bounds, too.
    dead = {stairs.name: state.dead(stairs) for stairs in stairs_within(replace(budget, bounds={}))}
    return TimedCut(kept, prices(state.widths), {name: count for name, count in dead.items() if count})


def _cut_dearest_last(state: Standing) -> None:
    """Take the least score per second until everything is met."""
    for last in (False, True):
        wanted = [stairs for stairs in state.stairs if stairs.last == last]
        while not state.fits():
            if not _descend(state, wanted):
                break
    if not state.fits():
        raise BudgetError(_unreachable(state))


def _descend(state: Standing, wanted: Sequence[Stairs]) -> bool:
    """Cut until something that was exceeded is met; whether it was."""
    before = state.unmet()
    heap: list[tuple[float, int, int, int]] = []

    def offer(index: int) -> None:
        best = _edge(state, wanted[index])
        if best:
            heapq.heappush(heap, (best[0], index, best[1], state.version[wanted[index].place]))

    for index in range(len(wanted)):
        offer(index)
    while heap and state.unmet() == before:
        _, index, level, version = heapq.heappop(heap)
        stairs = wanted[index]
        if version == state.version[stairs.place]:
            state.move(stairs, level)
        offer(index)
    return state.unmet() != before


def _edge(state: Standing, stairs: Stairs) -> tuple[float, int] | None:
    """The least score per share saved, and the level to which that leads."""
    here, end = state.level[stairs.place], len(stairs.ends)
    for stop in (min(here + 1 + AHEAD, end), end):
        levels = np.arange(here + 1, stop)
        gain = state.gain(stairs, levels)
        saving = gain > NOTHING
        if saving.any():
            harm = (stairs.harm[levels] - stairs.harm[here])[saving]
            ratios = harm / gain[saving]
            best = int(np.argmin(ratios))
            return float(ratios[best]), int(levels[saving][best])
    return None


def _give_back(state: Standing) -> None:
    """Steps that still fit, the dearest in score for their time first."""
    while True:
        best, chosen = -1.0, None
        for stairs in state.stairs:
            level = state.level[stairs.place]
            if level and (worth := _worth(state, stairs, level - 1)) > best:
                best, chosen = worth, stairs
        if chosen is None:
            return
        state.move(chosen, state.level[chosen.place] - 1)


def _exchanged(state: Standing) -> Standing:
    """With one step given back that did not fit, and others gone for it, where that keeps more score."""
    for _ in range(EXCHANGES):
        if state.limit - state.seconds <= SLACK * state.limit:
            break
        trials = [trial for stairs in state.stairs if state.level[stairs.place]
                  and (trial := _without(state, stairs)) is not None]
        best = min(trials, key=lambda trial: trial.harm, default=state)
        if best.harm >= state.harm:
            break
        state = best
    return state


def _without(state: Standing, stairs: Stairs) -> Standing | None:
    """One step of this group given back, and steps of others gone until it fits; None where it does not."""
    trial = state.copy()
    trial.move(stairs, state.level[stairs.place] - 1)
    others = [other for other in state.stairs if other is not stairs and not other.last]
    while not trial.fits() and trial.harm < state.harm:
        if not _descend(trial, others):
            break
    if not trial.fits():
        return None
    _give_back(trial)
    return trial


def _worth(state: Standing, stairs: Stairs, level: int) -> float:
    """Score per second of a step back; -1 where it does not fit."""
    widths = state.at(stairs, np.array([level]))
    cost = -float(state.saved(stairs, widths)[0])
    if state.seconds + cost > state.limit or any(bound.count(widths[0]) > bound.most for bound in state.bounds):
        return -1.0
    harm = float(stairs.harm[level + 1] - stairs.harm[level])
    return float("inf") if cost <= NOTHING * state.limit else harm / cost


def _cut_alike(state: Standing) -> None:
    """All groups alike: steps in the order of the share of their group that is gone with them, as few as meet it."""
    steps = sorted((stairs.last, stairs.ends[level] / stairs.size, stairs.place, level)
                   for stairs in state.stairs for level in range(1, len(stairs.ends)))
    by_place = {stairs.place: stairs for stairs in state.stairs}

    def stand(count: int) -> bool:
        reached = dict.fromkeys(by_place, 0)
        reached.update((place, level) for _, _, place, level in steps[:count])
        for place, level in reached.items():
            if state.level[place] != level:
                state.move(by_place[place], level)
        return state.fits()

    low, high = 0, len(steps)
    if not stand(high):
        raise BudgetError(_unreachable(state))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if stand(middle) else (middle + 1, high)
    stand(low)


def _unreachable(state: Standing) -> str:
    over = state.unmet()
    if over[0]:
        said = f"{1000 * state.limit:.4g} ms cannot be reached: the least that these groups reach is " \
               f"{1000 * state.seconds:.4g} ms"
    else:
        bound, now = next((b, n) for b, n, much in zip(state.bounds, state.counts, over[1:], strict=True) if much)
        said = f"a count of {bound.most:,.0f} cannot be reached: the least that these groups reach is {now:,}"
    return f"{said} ({len(state.stairs)} prunable groups); ask for at least that, lower min_channels or round_to, or " \
           "let more groups be cut with groups= and ignore="
