"""Auto-balanced filter pruning (Ding et al., "Auto-Balanced Filter Pruning for Efficient Convolutional Neural
Networks", AAAI 2018)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from fxprune.planning import Plan
from fxprune.planning.scoring import score_groups
from fxprune.training.arguments import number
from fxprune.training.decay.channel_decay import ChannelDecay, Rates
from fxprune.training.decay.growing import doomed

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling


class AutoBalanced(ChannelDecay):
    """Weak channels decay, and strong ones are stimulated as much in sum, so that the layer's strength stays.

    At the first update, with M_i the L1 norm and θ that of the strongest channel that is to go: λ_i = 1 + ln(θ/M_i) for
    those that go, −1 − ln(M_i/θ) for the others. At every update, with S₊ = Σ λ_i ‖W_i‖² over the ones and S₋ over the
    others, the rates are α λ_i and τ λ_i, with τ = −α S₊ / S₋.

    Args:
        coupling: `fxprune.analyze` of the model.
        plan: which channels go; draw it by ``criterion="l1"``.
        strength: α.

    Raises:
        InputError: a plan of another coupling, or a strength that makes no sense.
    """

    def __init__(self, coupling: "Coupling", plan: Plan, strength: float = 1e-4):
        self._doomed = doomed(coupling, plan)
        super().__init__(coupling, list(self._doomed))
        self.strength = number("strength", strength, "strength=1e-4")
        # Of no channels until the first update, but for every group: a checkpoint is loaded into what is listed.
        self._importance = {name: np.zeros(0) for name in self.groups}

    def rates(self, model: nn.Module) -> Rates:
        if not any(map(len, self._importance.values())):
            self._importance = {name: _importance(row, self._doomed[name])
                                for name, row in self.magnitudes(model).items()}
        squares = score_groups(list(self.groups.values()), model, "l2")
        found = {}
        for name, weights in self._importance.items():
            weak, energy = self._doomed[name], weights * squares[name] ** 2
            strong = energy[~weak].sum()
            balance = -self.strength * energy[weak].sum() / strong if strong else 0.0
            found[name] = np.where(weak, self.strength, balance) * weights
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"importance": {name: row.tolist() for name, row in self._importance.items()}}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._importance = {name: np.array(row) for name, row in state["importance"].items()}


def _importance(magnitudes: np.ndarray, weak: np.ndarray) -> np.ndarray:
    """λ_i; all 0 in a group of which nothing goes.

    >>> _importance(np.array([1.0, np.e, np.e ** 2]), np.array([True, True, False])).round(3).tolist()
    [2.0, 1.0, -2.0]
    """
    if not weak.any():
        return np.zeros(len(weak))
    ratio = np.log(magnitudes[weak].max() / np.maximum(magnitudes, 1e-12))
    found: np.ndarray = np.where(weak, 1 + ratio, -1 + np.minimum(ratio, 0))
    return found
