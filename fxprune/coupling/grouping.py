"""From closed ties to coupling groups and their costs; vectorised over channels."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fxprune.algebra.units import Reason, Vector
from fxprune.coupling.replay import Replay, Slot
from fxprune.groups import CARRIER, CONSUMER, PRODUCER, Costs, Count, CouplingGroup, Member

UNREAD = Reason("nothing produces these channels")


@dataclass(frozen=True, eq=False)
class Grouping:
    """``group[c]`` and ``ordinal[c]`` place channel c in ``groups`` (-1: in none)."""

    groups: tuple[CouplingGroup, ...]
    group: np.ndarray
    ordinal: np.ndarray


def group_channels(outcome: Replay) -> Grouping:
    """Channels whose members lie in the same dimensions, in the same way, are one group."""
    closure, notes = outcome.closure, outcome.notes
    channels = int(closure.channel.max()) + 1 if len(closure.channel) else 0
    produced, consumed = _marked(notes.produced, notes.ties.count), _marked(notes.consumed, notes.ties.count)
    voted = np.zeros(channels, bool)
    voted[closure.channel[produced]] = True
    signature = _signature(outcome, channels)
    order, first = _order(outcome, channels, produced)
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
    lists = _members(outcome, group, ordinal, len(sizes), produced, consumed)
    names = _names([first[by_group[start]] for start in np.cumsum(sizes) - sizes])
    heads = by_group[np.cumsum(sizes) - sizes]
    groups = tuple(CouplingGroup(name, int(size), tuple(entries), couplers, _reason(closure, head))
                   for name, size, entries, couplers, head in
                   zip(names, sizes, lists, _couplers(outcome, group, len(sizes)), heads, strict=True))
    return Grouping(groups, group, ordinal)


def _marked(noted: Iterable[tuple[int, Vector]], units: int) -> np.ndarray:
    mask = np.zeros(units, bool)
    for _, vector in noted:
        mask[vector[vector >= 0]] = True
    return mask


def _signature(outcome: Replay, channels: int) -> np.ndarray:
    """A random 64-bit fingerprint of where each channel lies, parameters, activations and factors alike."""
    rng = np.random.default_rng(0)
    fingerprint = np.zeros(channels, np.uint64)
    vectors = {id(v): v for v in outcome.slots.values()}
    vectors |= {id(v): v for dims in outcome.dims for entry in dims.values() for v in entry}
    vectors |= {id(v): v for _, c in outcome.notes.contractions for v in c.factors}
    for vector in vectors.values():
        units = vector[vector >= 0]
        if len(units):
            np.add.at(fingerprint, outcome.closure.channel[units], rng.integers(0, 2**64, dtype=np.uint64))
    frozen = outcome.closure.frozen
    return fingerprint + (frozen >= 0).astype(np.uint64)


def _order(outcome: Replay, channels: int, produced: np.ndarray) -> tuple[np.ndarray, dict[int, Slot]]:
    """Channels in the order of their first producer, and that producer."""
    order, first = np.full(channels, np.iinfo(np.int64).max), {}
    count = 0
    for slot, vector in outcome.slots.items():
        if not len(vector) or not produced[vector].any():
            continue
        found, where = np.unique(outcome.closure.channel[vector], return_index=True)
        new = order[found] == np.iinfo(np.int64).max
        order[found[new]] = count + where[new]
        first.update(dict.fromkeys(found[new].tolist(), slot))
        count += len(vector)
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


def _members(outcome: Replay, group: np.ndarray, ordinal: np.ndarray, count: int, produced: np.ndarray,
             consumed: np.ndarray) -> list[list[Member]]:
    lists: list[list[Member]] = [[] for _ in range(count)]
    for (name, dim), vector in outcome.slots.items():
        if not len(vector):
            continue
        channel = outcome.closure.channel[vector]
        owner = group[channel]
        role = PRODUCER if produced[vector].any() else CONSUMER if consumed[vector].any() else CARRIER
        low, high = int(owner.min()), int(owner.max())
        for g in [low] if low == high >= 0 else np.unique(owner[owner >= 0]).tolist():
            index = np.arange(len(owner)) if low == high else np.flatnonzero(owner == g)
            lists[g].append(Member(name, dim, role, ordinal[channel[index]], index))
    return lists


def _couplers(outcome: Replay, group: np.ndarray, count: int) -> list[tuple[str, ...]]:
    found: list[dict[str, None]] = [{} for _ in range(count)]
    for name, vectors in outcome.joints:
        for vector in vectors:
            units = vector[vector >= 0]
            if len(units):
                for g in np.unique(group[outcome.closure.channel[units]]).tolist():
                    if g >= 0:
                        found[g][name] = None
    return [tuple(names) for names in found]


def _reason(closure: object, channel: int) -> Reason | None:
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

    def index(self, vector: Vector) -> int:
        if id(vector) not in self._known:
            owner = self.grouping.group[self.outcome.closure.channel[vector[vector >= 0]]]
            owner = owner[owner >= 0]
            factor = self._known[id(vector)] = len(self.base)
            self.base.append(len(vector) - len(owner))
            if len(owner):
                counts = np.bincount(owner)
                self.rows += [(factor, g, int(counts[g] // self._sizes[g])) for g in np.flatnonzero(counts).tolist()]
        return self._known[id(vector)]

    def count(self, terms: list[tuple[int, list[int]]]) -> Count:
        width = max((len(factors) for _, factors in terms), default=1)
        padded = np.array([factors + [0] * (width - len(factors)) for _, factors in terms], np.int64)
        rows = np.array(self.rows, np.int64).reshape(-1, 3)
        return Count(np.array([c for c, _ in terms], np.int64), padded.reshape(-1, width),
                     np.array(self.base, np.int64), rows[:, 0], rows[:, 1], rows[:, 2])
