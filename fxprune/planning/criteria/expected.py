"""What a channel is expected to contribute, from the batch norms before it and the weights behind it; without data."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm as normal

from fxprune.ir.groups import CARRIER, CONSUMER, CouplingGroup, Member
from fxprune.planning.criteria.norms import L2
from fxprune.planning.criteria.slices import per_channel

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Expected:
    """E[max(z, 0)²]·‖W_:j‖², z normal with the mean β and the deviation |γ| of the batch norms that the channel has
    passed when it is read: float64 [readers, size], squared outputs. It is the channel's own share of what each layer
    that reads it puts out, if batch norms do what they are for and a ReLU follows them.

    In a residual stream β and γ² add up over the branches that a reader lies behind. A group without batch norms, or
    readers, gets the l2 norm of its producers, squared.
    """

    def __call__(self, group: CouplingGroup, tensors: Tensors) -> np.ndarray:
        rows, mean, variance = [], np.zeros(group.size), np.zeros(group.size)
        for member in group.members:
            if _is_scale(member, tensors):
                variance += per_channel(member, tensors[member.name], 2, group.size)
                mean += _shift(member, tensors, group.size)
            elif member.role == CONSUMER and variance.any():
                weight = per_channel(member, tensors[member.name], 2, group.size)
                rows.append(rectified_square(mean, np.sqrt(variance)) * weight)
        return np.stack(rows) if rows else np.square(L2()(group, tensors))


def rectified_square(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """E[max(z, 0)²] of normal z.

    >>> rectified_square(np.array([0.0, 2.0]), np.array([1.0, 0.0])).tolist()
    [0.5, 4.0]
    """
    ratio = mean / np.maximum(deviation, 1e-30)
    return np.asarray((mean ** 2 + deviation ** 2) * normal.cdf(ratio) + mean * deviation * normal.pdf(ratio))


def _is_scale(member: Member, tensors: Tensors) -> bool:
    return member.role == CARRIER and member.name.endswith(".weight") and f"{member.layer}.running_var" in tensors


def _shift(member: Member, tensors: Tensors, size: int) -> np.ndarray:
    bias = tensors.get(f"{member.layer}.bias")
    if bias is None:
        return np.zeros(size)
    values = bias.detach().double().cpu().numpy()[member.index]
    return np.bincount(member.channel, weights=values, minlength=size)
