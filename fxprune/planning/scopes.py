"""How scores of different groups are compared: the number that decides which block of channels goes first."""

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fxprune.ir.costs import Costs, Count

SCOPES = ("global", "uniform", "absolute", "isomorphic")
PRICES = ("macs", "params")


@dataclass(frozen=True, eq=False)
class Blocks:
    """A group's channels in the order in which they go, and the blocks in which they do.

    Args:
        group: the group's name.
        score: ascending, float64 [size].
        starts, ends: of the blocks, int64 [B].
        copies: how many groups lose each block together.
    """

    group: str
    score: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    copies: int = 1

    @property
    def channels(self) -> np.ndarray:
        return self.ends - self.starts

    @property
    def gone(self) -> np.ndarray:
        """The fraction of the group that is gone with each block."""
        return self.ends / len(self.score)

    def means(self, relative: bool) -> np.ndarray:
        """Mean score of each block, in units of the group's mean where ``relative``. A group of zeros stays zero.

        >>> Blocks("g", np.array([1.0, 2.0, 6.0]), np.array([0, 1]), np.array([1, 2])).means(relative=True).round(3)
        array([0.333, 0.667])
        """
        peak = self.score[-1]
        if peak == 0:
            return np.zeros(len(self.ends))
        # By the peak first, so that the sums of very large or very small scores stay finite and exact enough.
        score = self.score / peak
        means = np.add.reduceat(score[:self.ends[-1]], self.starts) / self.channels
        # Rounding must not put a block before one that goes earlier.
        return np.maximum.accumulate(means / score.mean() if relative else means * peak)


@dataclass(frozen=True, eq=False)
class Going:
    """Branches among the blocks of channels that a budget removes.

    Args:
        costs: what is left to pay for without branches of these names.
        gone: those that go at any budget.
        worth: of others, the key by which they are merged into the list of blocks.
    """

    costs: Callable[[Collection[str]], Costs]
    gone: tuple[str, ...] = ()
    worth: Mapping[str, float] = field(default_factory=dict)

    def within(self, names: Collection[str]) -> Costs:
        """Without what goes at any budget, and without these."""
        return self.costs({*self.gone, *names})


def keys(blocks: list[Blocks], scope: str, prices: Mapping[str, float], shapes: Mapping[str, Hashable],
         ) -> list[np.ndarray]:
    """What each block is worth, per group: non-decreasing along the group.

    Args:
        blocks: of all groups that may be cut.
        scope: one of ``SCOPES``.
        prices: what one channel of each group costs; nothing where scores are not priced.
        shapes: what groups of like shape have in common.
    """
    if scope == "uniform":
        return [block.gone for block in blocks]
    found = [block.means(scope == "global") * block.copies / prices.get(block.group, block.copies) for block in blocks]
    return _ranked_together(blocks, found, shapes) if scope == "isomorphic" else found


def _ranked_together(blocks: list[Blocks], found: list[np.ndarray], shapes: Mapping[str, Hashable]) -> list[np.ndarray]:
    """The share of all channels of like shape that is gone with each block."""
    alike: dict[Hashable, list[int]] = {}
    for place, block in enumerate(blocks):
        alike.setdefault(shapes.get(block.group), []).append(place)
    out = list(found)
    for places in alike.values():
        values = np.concatenate([found[p] for p in places])
        channels = np.concatenate([blocks[p].channels * blocks[p].copies for p in places])
        order = np.argsort(values, kind="stable")
        share = np.empty(len(order))
        share[order] = np.cumsum(channels[order]) / sum(len(blocks[p].score) * blocks[p].copies for p in places)
        for place, part in zip(places, np.split(share, np.cumsum([len(found[p]) for p in places])[:-1]), strict=True):
            out[place] = part
    return out


def saved_by_one(costs: Costs, kind: str, widths: np.ndarray) -> dict[str, float]:
    """What one channel of each group costs of ``kind`` (MACs or parameters) while the others are whole, as a share of
    the whole; groups whose channels cost nothing get the smallest number there is."""
    count: Count = getattr(costs, kind)
    before = count(widths)
    one = np.eye(len(widths), dtype=np.int64)
    return {name: max((before - count(widths - one[place])) / max(before, 1), np.finfo(float).tiny)
            for place, name in enumerate(costs.groups)}
