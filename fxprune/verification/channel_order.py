"""Where the kept part of a tensor lies in the pruned module, if the plan gives channels a new order.

Places stay and contents move (`fxprune.planning.composition`): what lies at the t-th place of channel s_j is the t-th
of what channel p_j had. So it is for activations as for weights.
"""

import numpy as np
import torch

from fxprune.coupling.coupling import Coupling
from fxprune.coupling.view import View
from fxprune.ir.masks import selected
from fxprune.ir.tape import Ref
from fxprune.planning import Plan
from fxprune.verification.kept_part import kept_part


class Order:
    """The order of a plan's channels, for every tensor of the run."""

    def __init__(self, coupling: Coupling, plan: Plan):
        evidence = coupling.evidence
        self._channel = evidence.channel
        self._source = np.arange(len(evidence.group))
        self.moved = False
        for index, name in enumerate(coupling.groups):
            kept = np.asarray(plan.groups[name].kept if name in plan.groups else (), np.int64)
            if (np.diff(kept) < 0).any():
                self.moved = True
                here = np.flatnonzero(evidence.group == index)
                channels = here[np.argsort(evidence.ordinal[here])]
                self._source[channels[np.sort(kept)]] = channels[kept]

    def part(self, tensor: torch.Tensor, view: View, ref: Ref) -> torch.Tensor:
        """The kept indices of every dimension, in their new order; what is written into the tensor is not written
        into them."""
        given = tensor
        if self.moved:
            for dim, vector in enumerate(view.dims.get(ref.id, ())):
                takes = self._takes(vector)
                if takes is not None:
                    places = torch.from_numpy(_tiled(takes, tensor.shape[dim])).to(tensor.device)
                    tensor = selected(tensor, dim, places)
        part = kept_part(tensor, view.masks(ref))
        return part.clone() if part is given else part

    def _takes(self, vector: np.ndarray) -> np.ndarray | None:
        """For every index of a dim vector, the index whose contents come there; None where nothing moves."""
        free = np.flatnonzero(vector >= 0)
        channel = self._channel[vector[free]]
        if not (self._source[channel] != channel).any():
            return None
        order = np.argsort(channel, kind="stable")
        start = np.searchsorted(channel[order], channel)
        rank = np.empty(len(free), np.int64)
        rank[order] = np.arange(len(free)) - start[order]
        takes = np.arange(len(vector))
        takes[free] = free[order[np.searchsorted(channel[order], self._source[channel]) + rank]]
        return takes


def _tiled(takes: np.ndarray, length: int) -> np.ndarray:
    """The same for another length: a batch merged with channels repeats their order."""
    if len(takes) == length:
        return takes
    period = int(np.gcd(len(takes), length))
    return np.concatenate([takes[:period] + k * period for k in range(length // period)])
