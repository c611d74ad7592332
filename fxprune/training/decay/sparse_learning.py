"""Group sparse learning (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023)."""

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from fxprune.planning.criteria.slices import slice_sums
from fxprune.planning.scoring import checked_tensors
from fxprune.planning.selection import Wanted
from fxprune.training.arguments import number
from fxprune.training.decay.channel_decay import ChannelDecay, Rates

if TYPE_CHECKING:
    from fxprune.coupling.coupling import Coupling

# The weakest channel of a group decays 2⁴ times as fast as the strongest.
SPREAD = 4


class SparseLearning(ChannelDecay):
    """λ_k = λ · 2^{4 (I_max − I_k) / (I_max − I_min)}, with I_k² = Σ over the group's tensors of ‖channel k's slice‖²,
    each in units of its mean over channels: weak channels decay up to 16 times as fast as strong ones.

    Args:
        coupling: `fxprune.analyze` of the model.
        strength: λ ≥ 0; weight decay should then be 0.
        groups: as for `fxprune.DWGL`.

    >>> import torch
    >>> from fxprune import analyze
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[3.0, 0.0], [1.0, 0.0]])), net[2].weight.fill_(1.0)
    >>> SparseLearning(analyze(net, torch.zeros(1, 2)), strength=0.5).rates(net)["0"]
    array([0.5, 8. ])
    """

    def __init__(self, coupling: "Coupling", strength: float = 5e-4, groups: Wanted = "auto"):
        super().__init__(coupling, groups)
        self.strength = number("strength", strength, "strength=5e-4")

    def rates(self, model: nn.Module) -> Rates:
        tensors = checked_tensors(model)
        found = {}
        for term in self._blocks.terms:
            squares = [slice_sums(part, tensors[part.name].double().square(), term.size) for part in term.parts]
            importance = np.sqrt(sum(row / max(row.mean(), 1e-12) for row in squares))
            spread = max(np.ptp(importance), 1e-12)
            found[term.group] = self.strength * 2 ** (SPREAD * (importance.max() - importance) / spread)
        return found
