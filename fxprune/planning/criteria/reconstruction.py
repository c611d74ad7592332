"""Criteria that read a layer's Gram matrix: what is lost of its outputs after the channels that stay made up for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from fxprune.planning.criteria.layer_rows import LayerRows

if TYPE_CHECKING:
    from fxprune.planning.statistics import Layer

Tensors = Mapping[str, torch.Tensor]
# λ in H + λI, in units of H's mean diagonal.
DAMPING = 1e-4


class _OfGrams(LayerRows):
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})


@dataclass(frozen=True)
class OBS(_OfGrams):
    """The squared error of a layer's outputs, per position, when a channel goes and the others take over, channels
    going one at a time: float64 [readers, size] (Hassibi and Stork, "Optimal Brain Surgeon", NIPS 1992; for
    structures: Kurtić et al., "ZipLM", NeurIPS 2023, equation 2).

    With H the covariance of the layer's inputs, removing M costs Σ_i w_iM (H⁻¹_MM)⁻¹ w_iMᵀ, and the rest moves by
    −w_M (H⁻¹_MM)⁻¹ H⁻¹_M,:. The score of the k-th to go is the largest cost so far.
    """

    def row(self, layer: "Layer", size: int) -> np.ndarray:
        moments = layer.reading.moments
        assert moments is not None, "``needs`` asks for them"
        return removal_costs(moments.centred()[0] / moments.n, layer.weight, layer.channel, size)[1]


def removal_costs(gram: torch.Tensor, weight: torch.Tensor, channel: np.ndarray, size: int,
                  ) -> tuple[list[int], np.ndarray]:
    """In which order channels go, and for each the largest cost so far.

    Args:
        gram: H, float64 [g, i, i].
        weight: float64 [g, i, o].
        channel: int64 [g, i], of each input; -1 where it stays.
        size: the number of channels.
    """
    inverse, weight, order = damped_inverse(gram), weight.clone(), list[int]()
    blocks = [block for g, row in enumerate(channel) for block in _blocks(g, row)]
    left = np.isin(np.arange(size), channel)
    costs, worst = np.zeros(size), 0.0
    while left.any():
        found = np.where(left, sum(block.costs(inverse, weight, left) for block in blocks), np.inf)
        j = int(found.argmin())
        worst = costs[j] = max(worst, found[j])
        for block in blocks:
            for index in block.inputs[block.channels == j]:
                surgeon_step_(inverse[block.group], weight[block.group], index)
        left[j] = False
        order.append(j)
    return order, costs


@dataclass(frozen=True, eq=False)
class _Block:
    """Of one group the channels that have as many inputs: int64 [c], and their inputs, [c, b]."""

    group: int
    channels: np.ndarray
    inputs: torch.Tensor

    def costs(self, inverse: torch.Tensor, weight: torch.Tensor, left: np.ndarray) -> np.ndarray:
        """tr((H⁻¹_MM)⁻¹ w_M w_Mᵀ) of those that are left, float64 [size]."""
        out, stays = np.zeros(len(left)), left[self.channels]
        inputs = self.inputs[torch.from_numpy(stays)]
        own = weight[self.group][inputs]
        among = inverse[self.group][inputs.unsqueeze(2), inputs.unsqueeze(1)]
        found = torch.linalg.solve(among, own @ own.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum(1)
        out[self.channels[stays]] = found.clamp_min(0).cpu().numpy()
        return out


def _blocks(group: int, channel: np.ndarray) -> Iterator[_Block]:
    """Of a group whose inputs belong to these channels (int64 [i]; -1: to none)."""
    found, counts = np.unique(channel[channel >= 0], return_counts=True)
    places = np.argsort(channel, kind="stable")[(channel < 0).sum():]
    ends = counts.cumsum()
    for count in np.unique(counts):
        starts = (ends - counts)[counts == count]
        yield _Block(group, found[counts == count], torch.from_numpy(places[starts[:, None] + np.arange(count)]))


def damped_inverse(gram: torch.Tensor) -> torch.Tensor:
    """(H + λI)⁻¹ of H [g, i, i]."""
    damping = DAMPING * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
    inverse: torch.Tensor = torch.linalg.inv(gram + damping[:, None, None] * torch.eye(gram.shape[1]).to(gram))
    return inverse


def surgeon_step_(inverse: torch.Tensor, weight: torch.Tensor, index: torch.Tensor) -> None:
    """Remove these inputs: the rest takes over, and H⁻¹ becomes that of the inputs that are left (zero elsewhere).

    Args:
        inverse: H⁻¹ [i, i], changed in place.
        weight: [i, o], changed in place.
        index: of the inputs.
    """
    gain = torch.linalg.solve(inverse[index][:, index], inverse[index])
    weight.addmm_(gain.T, weight[index], alpha=-1)
    weight[index] = 0
    inverse.addmm_(inverse[:, index], gain, alpha=-1)
    # What is gone costs nothing any more, and must not be solved with again.
    inverse[index], inverse[:, index] = 0, 0
    inverse[index, index] = 1


@dataclass(frozen=True)
class Lasso(_OfGrams):
    """The largest α at which a channel has a coefficient in min_β ½‖Y − Σ_j β_j x_j w_jᵀ‖² / N + α‖β‖₁, Y the layer's
    own outputs: float64 [readers, size], in squared outputs (He, Zhang, Sun, "Channel Pruning for Accelerating Very
    Deep Neural Networks", ICCV 2017, equation 2: the path in the place of one α).

    Args:
        steps: of α, each 0.8 of the one before.
    """

    steps: int = 40

    def row(self, layer: "Layer", size: int) -> np.ndarray:
        moments = layer.reading.moments
        assert moments is not None, "``needs`` asks for them"
        gram = (moments.centred()[0] / moments.n).numpy()
        quadratic = _contributions(gram, layer.weight.numpy(), layer.channel, size)
        return lasso_path(quadratic, self.steps)


def _contributions(gram: np.ndarray, weight: np.ndarray, channel: np.ndarray, size: int) -> np.ndarray:
    """Q_jk = ⟨x_j w_jᵀ, x_k w_kᵀ⟩ / N, float64 [size, size]."""
    out = np.zeros((size, size))
    for g, row in enumerate(channel):
        mine = np.flatnonzero(row >= 0)
        pairs = gram[g][np.ix_(mine, mine)] * (weight[g][mine] @ weight[g][mine].T)
        np.add.at(out, (row[mine][:, None], row[mine][None]), pairs)
    return out


def lasso_path(quadratic: np.ndarray, steps: int) -> np.ndarray:
    """For each coefficient the largest α of the path at which it is not zero.

    Minimises ½βᵀQβ − (Q1)ᵀβ + α‖β‖₁ by coordinate descent, from the α at which all are zero down.
    """
    target, diagonal = quadratic.sum(1), np.maximum(np.diag(quadratic), 1e-30)
    beta, entered = np.zeros(len(target)), np.zeros(len(target))
    alpha = np.abs(target).max(initial=0.0)
    for _ in range(steps):
        alpha *= 0.8
        _descend_(beta, quadratic, target, diagonal, alpha)
        entered = np.where((entered == 0) & (beta != 0), alpha, entered)
    return entered


def _descend_(beta: np.ndarray, quadratic: np.ndarray, target: np.ndarray, diagonal: np.ndarray, alpha: float,
              sweeps: int = 50) -> None:
    slope = target - quadratic @ beta
    for _ in range(sweeps):
        before = beta.copy()
        for j in range(len(beta)):
            free = slope[j] + diagonal[j] * beta[j]
            new = np.sign(free) * max(abs(free) - alpha, 0.0) / diagonal[j]
            if new != beta[j]:
                slope -= quadratic[:, j] * (new - beta[j])
                beta[j] = new
        if np.abs(beta - before).max(initial=0.0) <= 1e-4:
            return
