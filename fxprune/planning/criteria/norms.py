"""Norms of the weights that produce a channel.

L1: Li et al., "Pruning Filters for Efficient ConvNets" (2016). L2: the norm in group lasso (Wen et al. 2016).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fxprune.ir.groups import CouplingGroup
from fxprune.planning.criteria.slices import per_channel


@dataclass(frozen=True)
class L1:
    """Σ |w| over the slices of a channel in each voter: float64 [voters, size]."""

    def __call__(self, group: CouplingGroup, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        return np.stack([per_channel(m, tensors[m.name], 1, group.size) for m in group.voters])


@dataclass(frozen=True)
class L2:
    """√Σ w² over the slices of a channel in each voter: float64 [voters, size].

    >>> from fxprune.ir.groups import Member
    >>> conv = Member("conv.weight", 0, "producer", np.arange(2), np.arange(2))
    >>> L2()(CouplingGroup("conv", 2, (conv,)), {"conv.weight": torch.tensor([[3.0, 4.0], [0.0, -2.0]])})
    array([[5., 2.]])
    """

    def __call__(self, group: CouplingGroup, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
        return np.asarray(np.sqrt(np.stack([per_channel(m, tensors[m.name], 2, group.size) for m in group.voters])))
