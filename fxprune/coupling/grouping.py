"""From closed ties to coupling groups and their costs; vectorised over channels."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fxprune.coupling.replay import Replay
from fxprune.ir.costs import Costs, Count
from fxprune.ir.evidence import Slot
from fxprune.ir.groups import CARRIER, CONSUMER, PRODUCER, CouplingGroup, Member
from fxprune.ir.units import Closure, Reason, Vector

UNREAD = Reason("nothing produces these channels")


@dataclass(frozen=True, eq=False)
class Grouping:
    """``group[c]`` and ``ordinal[c]`` place channel c in ``groups`` (-1: in none)."""

    groups: tuple[CouplingGroup, ...]
    group: np.ndarray
    ordinal: np.ndarray


@dataclass(frozen=True, eq=False)
class _Slots:
    """All parameter dimensions that have a length; a slot's units are the run from ``start`` to ``stop``."""

    names: list[Slot]
    start: np.ndarray
    stop: np.ndarray

    @classmethod
    def of(cls, slots: Mapping[Slot, Vector]) -> "_Slots":
        names = [slot for slot, vector in slots.items() if len(vector)]
        start = np.array([slots[slot][0] for slot in names], np.int64)
        return cls(names, start, start + np.array([len(slots[slot]) for slot in names], np.int64))

    def any(self, marked: np.ndarray) -> np.ndarray:
        """Which slots have a marked unit."""
        before = np.concatenate([[0], np.cumsum(marked)])
        return before[self.stop] > before[self.start]


def group_channels(outcome: Replay) -> Grouping:
    """Channels whose members lie in the same dimensions, in the same way, are one group."""
    closure, notes = outcome.closure, outcome.notes
    channels = int(closure.channel.max()) + 1 if len(closure.channel) else 0
    slots = _Slots.of(outcome.slots)
    produced, consumed = _marked(notes.produced, notes.ties.count), _marked(notes.consumed, notes.ties.count)
    voted = np.zeros(channels, bool)
    voted[closure.channel[produced]] = True
    signature = _signature(outcome, channels)
    order, first = _order(closure.channel, slots, slots.any(produced), channels)
    members = np.flatnonzero(voted)
    members = members[np.argsort(order[members], kind="stable")]
    _, leader, label = np.unique(signature[members], return_index=True, return_inverse=True)
    rank = np.empty(len(leader), np.int64)
    rank[np.argsort(leader, kind="stable")] = np.arange(len(leader))
    group, ordinal = np.full(channels, -1), np.full(channels, -1)
    group[members] = rank[label.reshape(-1)]
    sizes = np.bincount(group[members], minlength=len(leader))
    by_group = members[np.argsort(group[members], kind="stable")]
    ordinal[by_group] = np.arange(len(members)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    roles = np.where(slots.any(produced), PRODUCER, np.where(slots.any(consumed), CONSUMER, CARRIER)).tolist()
    lists = _members(slots, roles, group[closure.channel], ordinal[closure.channel], len(sizes))
    heads = by_group[np.cumsum(sizes) - sizes]
    names = _names([slots.names[place] for place in first[heads].tolist()])
    groups = tuple(CouplingGroup(name, int(size), tuple(entries), couplers, _reason(closure, head))
                   for name, size, entries, couplers, head in
                   zip(names, sizes, lists, _couplers(outcome, group, len(sizes)), heads, strict=True))
    return Grouping(groups, group, ordinal)


def _marked(noted: Iterable[tuple[int, Vector]], units: int) -> np.ndarray:
    mask = np.zeros(units, bool)
    flat = _joined([vector for _, vector in noted])[0]
    mask[flat[flat >= 0]] = True
    return mask


def _joined(vectors: Collection[Vector]) -> tuple[np.ndarray, np.ndarray]:
    """The vectors one after the other, and which of them each index comes from; fixed ones, which are most and have no
    units, are left out."""
    free = [vector for vector in vectors if len(vector) and not (vector.strides[0] == 0 and vector[0] < 0)]
    flat = np.concatenate([np.zeros(0, np.int64), *free])
    return flat, np.repeat(np.arange(len(free)), list(map(len, free)))


def _signature(outcome: Replay, channels: int) -> np.ndarray:
    """A random 64-bit fingerprint of where each channel lies, parameters, activations and factors alike."""
    vectors = {id(v): v for v in outcome.slots.values()}
    vectors |= {id(v): v for dims in outcome.dims for entry in dims.values() for v in entry}
    vectors |= {id(v): v for _, c in outcome.notes.contractions for v in c.factors}
    flat, source = _joined(vectors.values())
    numbers = np.random.default_rng(0).integers(0, 2**64, dtype=np.uint64, size=len(vectors))
    fingerprint, free = np.zeros(channels, np.uint64), flat >= 0
    np.add.at(fingerprint, outcome.closure.channel[flat[free]], numbers[source[free]])
    frozen = outcome.closure.frozen
    return fingerprint + (frozen >= 0).astype(np.uint64)


def _order(channel: np.ndarray, slots: _Slots, producing: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Channels in the order of their first producer, and that producer's place among the slots."""
    places = np.flatnonzero(producing)
    runs = [channel[slots.start[place]:slots.stop[place]] for place in places.tolist()]
    flat = np.concatenate([np.zeros(0, np.int64), *runs])
    found, where = np.unique(flat, return_index=True)
    order, first = np.full(channels, np.iinfo(np.int64).max), np.full(channels, -1)
    order[found] = where
    first[found] = np.repeat(places, list(map(len, runs)))[where]
    return order, first


def _names(slots: list[Slot]) -> list[str]:
    """``conv1``, ``conv1#2``: the layer that produces a group first."""
    seen: dict[str, int] = {}
    names = []
    for parameter, _ in slots:
        owner, _, leaf = parameter.rpartition(".")
        layer = owner if owner and leaf.startswith("weight") else parameter
        seen[layer] = seen.get(layer, 0) + 1
        names.append(layer if seen[layer] == 1 else f"{layer}#{seen[layer]}")
    return names


def _members(slots: _Slots, roles: list[str], owner: np.ndarray, ordinal: np.ndarray, count: int
             ) -> list[list[Member]]:
    """The members of every group; ``owner`` and ``ordinal`` place each unit."""
    lists: list[list[Member]] = [[] for _ in range(count)]
    whole: dict[int, np.ndarray] = {}
    runs = zip(slots.names, roles, slots.start.tolist(), slots.stop.tolist(), strict=True)
    for (name, dim), role, start, stop in runs:
        owners = owner[start:stop]
        if owners[0] >= 0 and np.count_nonzero(owners == owners[0]) == stop - start:  # one group's alone, as most are
            index = whole.setdefault(stop - start, np.arange(stop - start))
            lists[owners[0]].append(Member(name, dim, role, ordinal[start:stop].copy(), index))
            continue
        for g in np.unique(owners[owners >= 0]).tolist():
            index = np.flatnonzero(owners == g)
            lists[g].append(Member(name, dim, role, ordinal[start:stop][index], index))
    return lists


def _couplers(outcome: Replay, group: np.ndarray, count: int) -> list[tuple[str, ...]]:
    found: list[dict[str, None]] = [{} for _ in range(count)]
    for name, vectors in outcome.joints:
        flat, _ = _joined(vectors)
        for g in np.unique(group[outcome.closure.channel[flat[flat >= 0]]]).tolist():
            if g >= 0:
                found[g][name] = None
    return [tuple(names) for names in found]


def _reason(closure: Closure, channel: int) -> Reason | None:
    index = closure.frozen[channel]
    return None if index < 0 else closure.reasons[index]


def costs(outcome: Replay, grouping: Grouping, parameters: Collection[str], layers: Mapping[str, Slot], calls: int
          ) -> Costs:
    """MACs and parameters in closed form from the groups' widths; only the first ``calls`` calls are paid for (the
    inference graph, where training has one of its own)."""
    table = _Factors(outcome, grouping)
    used = [name for name in dict.fromkeys(name for name, _ in outcome.slots) if name in parameters]
    ranks = {name: [d for n, d in outcome.slots if n == name] for name in used} if len(used) < 64 else _ranks(outcome)
    paid = [(index, c) for index, c in outcome.notes.contractions if index < calls]
    macs = [(c.positions, [table.index(v) for v in c.factors]) for _, c in paid]
    params = [(1, [table.index(outcome.slots[name, d]) for d in ranks.get(name, [])]) for name in used]
    widths = [(1, [table.index(outcome.slots[slot])]) for slot in layers.values()]
    names = tuple(g.name for g in grouping.groups)
    owners = tuple(outcome.calls[i].node for i, _ in paid)
    return Costs(names, table.count(macs), table.count(params), tuple(layers), table.count(widths), owners, tuple(used))


def _ranks(outcome: Replay) -> dict[str, list[int]]:
    ranks: dict[str, list[int]] = {}
    for name, dim in outcome.slots:
        ranks.setdefault(name, []).append(dim)
    return ranks


class _Factors:
    """Distinct dim vectors as factors of a cost: how much of each length every group contributes."""

    def __init__(self, outcome: Replay, grouping: Grouping):
        self.outcome, self.grouping = outcome, grouping
        self.base: list[int] = [1]
        self.rows: list[tuple[int, int, int]] = []
        self._known: dict[int, int] = {}
        self._sizes = np.array([g.size for g in grouping.groups], np.int64)
        self._owner = grouping.group[outcome.closure.channel]

    def index(self, vector: Vector) -> int:
        if id(vector) not in self._known:
            owner = self._owner[vector[vector >= 0]]
            owner = owner[owner >= 0]
            factor = self._known[id(vector)] = len(self.base)
            self.base.append(len(vector) - len(owner))
            if len(owner):
                counts = np.bincount(owner)
                self.rows += [(factor, g, int(counts[g] // self._sizes[g])) for g in np.flatnonzero(counts).tolist()]
        return self._known[id(vector)]

    def count(self, terms: list[tuple[int, list[int]]]) -> Count:
        width = max([1, *(len(factors) for _, factors in terms)])
        padded = np.array([factors + [0] * (width - len(factors)) for _, factors in terms], np.int64)
        rows = np.array(self.rows, np.int64).reshape(-1, 3)
        return Count(np.array([c for c, _ in terms], np.int64), padded.reshape(-1, width),
                     np.array(self.base, np.int64), rows[:, 0], rows[:, 1], rows[:, 2])
