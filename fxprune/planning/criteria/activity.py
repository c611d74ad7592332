"""Criteria that read activations: how strongly, how often and how variedly a channel fires where it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fxprune.errors import InputError
from fxprune.planning.criteria.layer_rows import LayerRows

if TYPE_CHECKING:
    from fxprune.planning.statistics import Layer

Tensors = Mapping[str, torch.Tensor]


class _OfReaders(LayerRows):
    needs: ClassVar[frozenset[str]] = frozenset({"inputs"})


@dataclass(frozen=True)
class Activation(_OfReaders):
    """Mean |x| of a channel where it is read (behind its nonlinearity): float64 [readers, size]."""

    def row(self, layer: "Layer", size: int) -> np.ndarray:
        return layer.mean_by_channel(layer.reading.size / layer.reading.n, size)


@dataclass(frozen=True)
class APoZ(_OfReaders):
    """One less the average percentage of zeros: the share of a channel's activations that are not zero, float64
    [readers, size] (Hu et al., "Network Trimming", 2016, arXiv 1607.03250, equation 1)."""

    def row(self, layer: "Layer", size: int) -> np.ndarray:
        return layer.mean_by_channel(layer.reading.active / layer.reading.n, size)


@dataclass(frozen=True)
class Fluctuation(_OfReaders):
    """Var(x_j)·Σ_i w_ij²: what replacing a channel by its mean changes in what reads it, float64 [readers, size] (An
    et al., "Fluctuation-based Adaptive Structured Pruning", AAAI 2024; squared outputs)."""

    def row(self, layer: "Layer", size: int) -> np.ndarray:
        return layer.by_channel(layer.reading.variance() * layer.weight.square().sum(2), size)


@dataclass(frozen=True)
class Wanda(_OfReaders):
    """Σ_i |w_ij|·‖x_j‖ / √n, float64 [readers, size] (Sun et al., "A Simple and Effective Pruning Approach for Large
    Language Models", ICLR 2024, its score summed over a channel's slices)."""

    def row(self, layer: "Layer", size: int) -> np.ndarray:
        root = (layer.reading.square / layer.reading.n).sqrt()
        return layer.by_channel(root * layer.weight.abs().sum(2), size)


@dataclass(frozen=True)
class Entropy(_OfReaders):
    """−Σ_b p_b log p_b of a channel's mean over positions, sample by sample, in equal bins between its smallest and its
    largest: nats, float64 [readers, size] (Luo and Wu, "An Entropy-based Pruning Method for CNN Compression", 2017,
    arXiv 1706.05791, equation 2; the number of bins is not given there).

    Args:
        bins: how many.
    """

    bins: int = 16
    needs: ClassVar[frozenset[str]] = frozenset({"pooled"})

    def __post_init__(self) -> None:
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or self.bins < 2:
            raise InputError(f"bins must be an integer >= 2, got {self.bins!r}; write Entropy(bins=16)")

    def row(self, layer: "Layer", size: int) -> np.ndarray:
        if not layer.reading.pooled:
            raise InputError(f"entropy needs samples along the first dimension of what enters {layer.name!r}, and "
                             "there are none; take criterion='activation'")
        return layer.mean_by_channel(_entropies(torch.cat(layer.reading.pooled, 1), self.bins), size)


def _entropies(pooled: torch.Tensor, bins: int) -> torch.Tensor:
    """Of [g, samples, i]: float64 [g, i]."""
    low, high = pooled.amin(1, keepdim=True), pooled.amax(1, keepdim=True)
    place = ((pooled - low) / (high - low).clamp_min(1e-30) * bins).long().clamp(0, bins - 1)
    counts = torch.zeros(pooled.shape[0], bins, pooled.shape[2], dtype=torch.float64)
    counts.scatter_add_(1, place, torch.ones_like(place, dtype=torch.float64))
    entropies: torch.Tensor = torch.special.entr(counts / pooled.shape[1]).sum(1)
    return entropies
