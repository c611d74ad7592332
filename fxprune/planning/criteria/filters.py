"""Criteria that compare a layer's filters with each other: which one the others can stand in for."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fxprune.ir.groups import CARRIER, CouplingGroup, Member
from fxprune.planning.criteria.slices import per_channel

Tensors = Mapping[str, torch.Tensor]


def filters(member: Member, tensor: torch.Tensor, size: int) -> np.ndarray:
    """A channel's slices in one member, side by side: float64 [size, entries]; channels with fewer get zeros.

    >>> member = Member("conv.weight", 0, "producer", np.array([0, 1, 0]), np.arange(3))
    >>> filters(member, torch.tensor([[1.0], [2.0], [3.0]]), 2).tolist()
    [[1.0, 3.0], [2.0, 0.0]]
    """
    rows = tensor.detach().movedim(member.dim, 0).flatten(1).double().cpu().numpy()[member.index]
    order = np.argsort(member.channel, kind="stable")
    counts = np.bincount(member.channel, minlength=size)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    out = np.zeros((size, counts.max(initial=0), rows.shape[1]))
    out[member.channel[order], place] = rows[order]
    return out.reshape(size, -1)


def distances(rows: np.ndarray) -> np.ndarray:
    """Squared distances of all rows: float64 [n, n].

    >>> distances(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [[0.0, 25.0], [25.0, 0.0]]
    """
    square = np.square(rows).sum(1)
    found: np.ndarray = np.maximum(square[:, None] + square - 2 * rows @ rows.T, 0)
    np.fill_diagonal(found, 0)
    return found


@dataclass(frozen=True)
class FPGM:
    """Σ_k ‖W_j − W_k‖: how far a filter is from the others of its layer, so that those next to their geometric median
    go; float64 [voters, size] (He et al., "Filter Pruning via Geometric Median", CVPR 2019, equation 6)."""

    def __call__(self, group: CouplingGroup, tensors: Tensors) -> np.ndarray:
        return np.stack([np.sqrt(distances(filters(m, tensors[m.name], group.size))).sum(1) for m in group.voters])


@dataclass(frozen=True)
class LAMP:
    """‖W_j‖² over the sum of all ‖W_k‖² that are not smaller, in its layer: float64 [voters, size] (Lee et al.,
    "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021, equation 4, filters in the place of weights).
    Compare it with ``scope="absolute"``: it brings its own normalisation."""

    def __call__(self, group: CouplingGroup, tensors: Tensors) -> np.ndarray:
        return np.stack([self._row(per_channel(m, tensors[m.name], 2, group.size)) for m in group.voters])

    def _row(self, squares: np.ndarray) -> np.ndarray:
        order = np.argsort(squares, kind="stable")
        above = np.cumsum(squares[order][::-1])[::-1]
        out = np.empty_like(squares)
        out[order] = squares[order] / np.maximum(above, np.finfo(float).tiny)
        return out


@dataclass(frozen=True)
class Similarity:
    """min over k of mean(a_j²)·‖Ŵ_j − Ŵ_k‖²: what merging a channel into its nearest changes; float64 [1, size]
    (Srinivas and Babu, "Data-free Parameter Pruning for Deep Neural Networks", BMVC 2015, equation 6).

    a_j are the weights that read channel j. Ŵ are the filters of all voters with their biases, and, where a batch norm
    follows, as it leaves them: γW/σ and β − γμ/σ. `fxprune.merge` does what this measures.
    """

    def __call__(self, group: CouplingGroup, tensors: Tensors) -> np.ndarray:
        pairs = similarity(group, tensors)
        np.fill_diagonal(pairs, np.inf)
        return pairs.min(1, initial=np.inf, where=~np.eye(group.size, dtype=bool))[None] if group.size > 1 \
            else np.ones((1, 1))


def similarity(group: CouplingGroup, tensors: Tensors) -> np.ndarray:
    """mean(a_j²)·‖Ŵ_j − Ŵ_k‖², float64 [size, size]: of channel j, were k to stand in for it."""
    rows = np.concatenate([effective(group, m, tensors) for m in group.voters], axis=1)
    readers = [per_channel(m, tensors[m.name], 2, group.size) * group.size / max(tensors[m.name].numel(), 1)
               for m in group.consumers]
    saliency = np.sum(readers, axis=0) if readers else np.ones(group.size)
    return np.asarray(saliency[:, None] * distances(rows))


def effective(group: CouplingGroup, voter: Member, tensors: Tensors) -> np.ndarray:
    """A voter's filters and biases as they leave the batch norm behind it: float64 [size, entries + 1]."""
    rows = filters(voter, tensors[voter.name], group.size)
    scale, shift = affine(group, voter, tensors)
    return np.concatenate([rows * scale[:, None], shift[:, None]], axis=1)


def affine(group: CouplingGroup, voter: Member, tensors: Tensors) -> tuple[np.ndarray, np.ndarray]:
    """What a voter's output is multiplied by, and what is added to it, channel by channel: float64 [size] each.

    Its own bias, and the batch norm whose name follows it among the group's members (in the order of execution)."""
    places = list(group.members)
    after = places[places.index(voter) + 1:]
    behind = next((k for k, m in enumerate(after) if m in group.voters), len(after))
    carried = {m.name: m for m in after[:behind] if m.role == CARRIER and m.dim == 0}

    def value(name: str, default: float) -> np.ndarray:
        member = carried.get(name) or next((m for m in group.members if m.name == name), None)
        if member is None or name not in tensors:
            return np.full(group.size, default)
        found = np.full(group.size, default)
        found[member.channel] = tensors[name].detach().double().cpu().numpy()[member.index]
        return found

    bias = value(f"{voter.layer}.bias", 0.0)
    norm = next((m.layer for m in carried.values() if f"{m.layer}.running_var" in tensors), None)
    if norm is None:
        return np.ones(group.size), bias
    scale = value(f"{norm}.weight", 1.0) / np.sqrt(value(f"{norm}.running_var", 1.0) + 1e-5)
    return scale, value(f"{norm}.bias", 0.0) + scale * (bias - value(f"{norm}.running_mean", 0.0))
