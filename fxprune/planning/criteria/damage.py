"""Criteria that read derivatives: what the loss, or the outputs, would lose with a channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fxprune.ir.groups import CONSUMER, PRODUCER, CouplingGroup, Member
from fxprune.planning.criteria.slices import slice_sums

if TYPE_CHECKING:
    from fxprune.planning.statistics import Statistics

Tensors = Mapping[str, torch.Tensor]


def _readers(group: CouplingGroup, names: Mapping[str, object]) -> list[int]:
    """The members that read the channels; those that produce them where nothing does. A channel goes once: its weights
    on both sides hold the same contribution, and only one side may count it."""
    for role in (CONSUMER, PRODUCER):
        found = [k for k, member in enumerate(group.members) if member.role == role and member.name in names]
        if found:
            return found
    return [k for k, member in enumerate(group.members) if member.name in names]


@dataclass(frozen=True)
class Taylor:
    """The mean over batches of (Σ w·∂L/∂w)², over all the weights that read a channel: the squared change of the loss,
    to first order, when it goes; float64 [1, size] (Molchanov et al., "Importance Estimation for Neural Network
    Pruning", CVPR 2019, equation 8, its gate placed before every layer that reads the channel).

    Without labels or a loss: the squared change of the outputs (see `fxprune.planning.objectives`).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def __call__(self, group: CouplingGroup, tensors: Tensors, statistics: "Statistics") -> np.ndarray:
        found = statistics.gradients[group.name]
        members = _readers(group, {m.name: 0 for k, m in enumerate(group.members) if found[:, k].any()})
        return np.asarray(np.square(found[:, members].sum(1)).mean(0, keepdims=True))


@dataclass(frozen=True)
class Hessian:
    """½ Σ w²·∂²L/∂w² over all the weights that read a channel, negative curvature counted as none: float64 [1, size]
    (LeCun, Denker, Solla, "Optimal Brain Damage", NIPS 1989, equation 5)."""

    needs: ClassVar[frozenset[str]] = frozenset({"curvature"})

    def __call__(self, group: CouplingGroup, tensors: Tensors, statistics: "Statistics") -> np.ndarray:
        members = [group.members[k] for k in _readers(group, statistics.curvature)]
        return np.atleast_2d(np.sum([self._damage(m, tensors, statistics, group.size) for m in members], axis=0))

    def _damage(self, member: Member, tensors: Tensors, statistics: "Statistics", size: int) -> np.ndarray:
        curvature = statistics.curvature[member.name].clamp_min(0)
        return slice_sums(member, tensors[member.name].double().square() * curvature / 2, size)
