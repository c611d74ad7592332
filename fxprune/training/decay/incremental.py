"""Incremental regularisation (Wang et al., "Structured Pruning for Efficient ConvNets via Incremental Regularization",
2018, arXiv 1804.09461; there for columns, here for channels)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from fxprune.errors import InputError
from fxprune.ir.groups import CouplingGroup
from fxprune.planning.selection import Wanted
from fxprune.training.arguments import number
from fxprune.training.decay.channel_decay import ChannelDecay, Rates

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

# Where the increment's curve turns: u · A at the middle of its fall.
TURN = 0.25


def increments(count: int, going: int, peak: float) -> np.ndarray:
    """Δ by rank j = 0 … count − 1, weakest first: A e^{−αj} up to N, then 2uA − A e^{−α(2N−j)}, zero at j = K, and
    negative beyond; α = ln(2/u)/K, N = −ln(u)/α.

    Args:
        count: channels that are ranked.
        going: K, how many are still to go.
        peak: A.

    >>> found = increments(5, going=2, peak=1.0)
    >>> found.round(3).tolist()
    [1.0, 0.354, 0.0, -0.914, -3.5]
    """
    rank = np.arange(count, dtype=np.float64)
    alpha = math.log(2 / TURN) / max(going, 1)
    turn = -math.log(TURN) / alpha
    return np.where(rank < turn, peak * np.exp(-alpha * rank),
                    2 * TURN * peak - peak * np.exp(-alpha * (2 * turn - rank)))


def how_many_go(groups: Mapping[str, CouplingGroup], channels: float) -> dict[str, int]:
    """Of each group, where this fraction of its channels is kept, and at least one.

    Raises:
        InputError: no fraction.
    """
    if isinstance(channels, bool) or not isinstance(channels, (int, float)) or not 0 < channels < 1:
        raise InputError(f"channels must be the fraction to keep, in (0, 1), got {channels!r}; write channels=0.5")
    return {name: group.size - max(1, round(channels * group.size)) for name, group in groups.items()}


class Ranking:
    """The running mean of each channel's rank by L1 norm, among those of its group that are not gone.

    Args:
        sizes: of the groups.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.mean = {name: np.zeros(size) for name, size in sizes.items()}
        self.count = 0

    def ranked(self, magnitudes: Rates, gone: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Each group's remaining channels, weakest first by the mean of their ranks."""
        found = {}
        for name, size in magnitudes.items():
            # What is gone ranks below all others.
            rank = np.argsort(np.argsort(np.where(gone[name], -1.0, size), kind="stable"), kind="stable")
            self.mean[name] = self.mean[name] + (rank - self.mean[name]) / (self.count + 1)
            order = np.argsort(self.mean[name], kind="stable")
            found[name] = order[~gone[name][order]]
        self.count += 1
        return found


class IncReg(ChannelDecay):
    """Every update, each channel's λ moves by Δ(rank): up for the weak, down for the strong, never below 0. A channel
    whose λ reaches the target is gone for good, until the group has only the channels that it is to keep.

    Args:
        coupling: `fxprune.analyze` of the model.
        channels: the fraction of every group to keep.
        peak: A, the largest increment.
        target: λ at which a channel is gone; 10⁴ · A where None.
        groups: as for `fxprune.DWGL`.

    Raises:
        InputError: numbers that make no sense.
    """

    def __init__(self, coupling: "Coupling", channels: float = 0.5, peak: float = 2.5e-4, target: float | None = None,
                 groups: Wanted = "auto"):
        super().__init__(coupling, groups)
        self.peak = number("peak", peak, "peak=2.5e-4", positive=True)
        self.target = 1e4 * peak if target is None else number("target", target, "target=2.5", positive=True)
        self.going = how_many_go(self.groups, channels)
        self._rates = {name: np.zeros(group.size) for name, group in self.groups.items()}
        self._ranking = Ranking({name: group.size for name, group in self.groups.items()})

    @property
    def gone(self) -> dict[str, np.ndarray]:
        """The channels whose λ has reached the target: bool [channels]."""
        return {name: rates >= self.target for name, rates in self._rates.items()}

    def rates(self, model: nn.Module) -> Rates:
        gone = self.gone
        for name, order in self._ranking.ranked(self.magnitudes(model), gone).items():
            left = self.going[name] - int(gone[name].sum())
            if left > 0:
                moved = self._rates[name][order] + increments(len(order), left, self.peak)
                self._rates[name][order] = np.clip(moved, 0.0, self.target)
        return self._rates

    def state_dict(self) -> dict[str, Any]:
        return {"rates": {name: row.tolist() for name, row in self._rates.items()},
                "ranks": {name: row.tolist() for name, row in self._ranking.mean.items()},
                "updates": self._ranking.count}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._rates = {name: np.array(row) for name, row in state["rates"].items()}
        self._ranking.mean = {name: np.array(row) for name, row in state["ranks"].items()}
        self._ranking.count = int(state["updates"])
