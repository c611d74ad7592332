"""The weight that comes closest to what a layer computed before, from its moments.

With X the rows that the pruned layer reads, Y what the original puts out at the kept channels, and W₀ the weight as it
was cut (He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section 3.1, with an
intercept; the ridge draws towards W₀, so that a strong one changes nothing):

    min over W, b of  ‖Y − X W − 1bᵀ‖² + λ ‖W − W₀‖²   ⇒   W = W₀ + (C + λI)⁻¹ (D − C W₀),  C = X̃ᵀX̃, D = X̃ᵀỸ

with X̃, Ỹ centred. λ is chosen by the error on rows that were held out. A Gram matrix without full rank (fewer rows than
columns, dead inputs) is no trouble, since λ > 0.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from fxprune.planning.moments import Moments

# In units of the Gram matrix's mean eigenvalue.
RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)


@dataclass(frozen=True, eq=False)
class Solution:
    """A layer solved anew.

    Args:
        weight: float64 [g, i, o].
        bias: float64 [g, o].
        before, after: the error on held-out rows of the layer as cut and as solved, in units of the outputs' variance.
        ridge: λ in units of the mean eigenvalue; infinite where only the bias moves.
    """

    weight: Tensor
    bias: Tensor
    before: float
    after: float
    ridge: float


def solve(fit: Moments, held: Moments, weight: Tensor, bias: Tensor, intercept: bool,
          ridges: tuple[float, ...] = RIDGES) -> Solution:
    """Fit on the one, choose the ridge on the other, and fit once more on both.

    Args:
        fit, held: moments of the pruned layer's rows and the original's outputs.
        weight, bias: as cut, [g, i, o] and [g, o].
        intercept: whether the bias may move.
    """
    weight, bias = weight.double(), bias.double()
    scale = float(held.spread().sum()) or 1.0
    before = float(held.error(weight, bias).sum()) / scale
    path = _Path(fit, weight, bias, intercept)
    errors = {ridge: float(held.error(*path(ridge)).sum()) / scale for ridge in (*ridges, torch.inf)}
    ridge = min(errors, key=errors.__getitem__)
    found = _Path(fit + held, weight, bias, intercept)(ridge)
    return Solution(*found, before, errors[ridge], ridge)


class _Path:
    """The solution as a function of the ridge; one decomposition serves all."""

    def __init__(self, moments: Moments, weight: Tensor, bias: Tensor, intercept: bool):
        self.moments, self.weight, self.bias, self.intercept = moments, weight, bias, intercept
        gram, right = moments.centred() if intercept else (moments.xx, moments.xy - moments.x.unsqueeze(2)
                                                           * bias.unsqueeze(1))
        self.gram, self.right = gram, right

    @cached_property
    def decomposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues, eigenvectors, and in their terms what is left to explain; where only the bias moves, unread."""
        values, vectors = eigen(self.gram)
        return values.clamp_min(0), vectors, vectors.transpose(1, 2) @ (self.right - self.gram @ self.weight)

    def __call__(self, ridge: float) -> tuple[Tensor, Tensor]:
        weight = self.weight
        if ridge != torch.inf:
            values, vectors, residual = self.decomposed
            shrunk = values + ridge * values.mean(1, keepdim=True).clamp_min(1e-300)
            weight = weight + vectors @ (residual / shrunk.unsqueeze(2))
        if not self.intercept:
            return weight, self.bias
        m = self.moments
        return weight, (m.y - (m.x.unsqueeze(1) @ weight).squeeze(1)) / max(m.n, 1)


def eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of symmetric matrices [g, i, i]. Divide and conquer does not converge on some that
    have hardly any rank; QR steps do, and are slower."""
    try:
        return torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:
        found = [scipy.linalg.eigh(each.cpu().numpy(), driver="ev") for each in gram]
        values, vectors = (torch.from_numpy(np.stack(side)).to(gram) for side in zip(*found, strict=True))
        return values, vectors
