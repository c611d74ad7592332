"""The weight that comes closest to what a layer computed before, from its moments.

With X the rows that the pruned layer reads, Y what the original puts out at the kept channels, and W₀ the weight as it
was cut (He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section 3.1, with an
intercept; the ridge draws towards W₀, so that a strong one changes nothing):

    min over W, b of  ‖Y − X W − 1bᵀ‖² + λ ‖W − W₀‖²   ⇒   W = W₀ + (C + λI)⁻¹ (D − C W₀),  C = X̃ᵀX̃, D = X̃ᵀỸ

with X̃, Ỹ centred. λ is chosen by the error on rows that were held out. A Gram matrix without full rank (fewer rows than
columns, dead inputs) is no trouble, since λ > 0.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from fxprune.planning.moments import COLUMNS, Moments

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
    errors = {ridge: error / scale for ridge, error in _held_out(fit, held, weight, bias, intercept, ridges).items()}
    ridge = min(errors, key=errors.__getitem__)
    return Solution(*refitted(fit + held, weight, bias, intercept, ridge), before, errors[ridge], ridge)


def _held_out(fit: Moments, held: Moments, weight: Tensor, bias: Tensor, intercept: bool,
              ridges: tuple[float, ...]) -> dict[float, float]:
    """Each ridge's squared error on the held-out rows, and that of the bias alone (infinity).

    With C = V diag(s) Vᵀ and R = Vᵀ(D − C W₀), the weight is W₀ + V diag(d) R, d = 1 / (s + λ). So the error, with
    means as they were fitted, is a quadratic form in d, and no ridge costs a product of matrices:

        ‖Ỹ − X̃ W₀‖² − 2 Σ_k d_k (R ∘ Vᵀ(X̃ᵀỸ − X̃ᵀX̃ W₀))_k. + dᵀ (Vᵀ X̃ᵀX̃ V ∘ R Rᵀ) d
    """
    terms = _in_eigenvectors(fit, weight, bias, intercept) if ridges else None
    there = held.about(fit.x / max(fit.n, 1), fit.y / max(fit.n, 1)) if intercept else held.about(0 * fit.x, bias)
    slope = there.xy - there.xx @ weight
    still = float(there.yy.sum() - (weight * (there.xy + slope)).sum())
    if terms is None:
        return {torch.inf: still}
    values, vectors, residual = terms
    vt = vectors.transpose(1, 2)
    d = torch.stack([1 / (values + _damping(values, ridge)) for ridge in ridges], 1)
    linear = d @ (residual * (vt @ slope)).sum(2, keepdim=True)
    changes = (_quadratic(d, vt, there.xx @ vectors, residual) - 2 * linear.squeeze(2)).sum(0)
    return {ridge: max(still + float(change), 0.0) for ridge, change in zip((*ridges, torch.inf), (*changes, 0.0),
                                                                            strict=True)}


def _in_eigenvectors(moments: Moments, weight: Tensor, bias: Tensor, intercept: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues of C, its eigenvectors, and in their terms what W₀ leaves to explain."""
    gram, right = _centred(moments, bias, intercept)
    values, vectors = eigen(gram)
    return values.clamp_min(0), vectors, vectors.transpose(1, 2) @ (right - gram @ weight)


def _quadratic(d: Tensor, vt: Tensor, right: Tensor, residual: Tensor) -> Tensor:
    """dᵀ (vt·right ∘ residual·residualᵀ) d of symmetric matrices [g, i, i], for d [g, ridges, i]: [g, ridges]."""
    total = d.new_zeros(d.shape[:2])
    for start in range(0, d.shape[2], COLUMNS):
        end = start + COLUMNS
        rows = (vt[:, start:end] @ right[:, :, start:]) * (residual[:, start:end] @ residual[:, start:].transpose(1, 2))
        rows[:, :, COLUMNS:] *= 2  # and what lies below the diagonal
        total += ((d[:, :, start:end] @ rows) * d[:, :, start:]).sum(2)
    return total


def refitted(moments: Moments, weight: Tensor, bias: Tensor, intercept: bool, ridge: float) -> tuple[Tensor, Tensor]:
    """The weight and the bias at one ridge, from float64 ones as cut."""
    if ridge != torch.inf:
        gram, right = _centred(moments, bias, intercept)
        weight = weight + _ridged(gram, right - gram @ weight, ridge)
    if not intercept:
        return weight, bias
    return weight, (moments.y - (moments.x.unsqueeze(1) @ weight).squeeze(1)) / max(moments.n, 1)


def _centred(moments: Moments, bias: Tensor, intercept: bool) -> tuple[Tensor, Tensor]:
    """C and D; without an intercept about what the bias is."""
    return moments.centred() if intercept else (moments.xx, moments.xy - moments.x.unsqueeze(2) * bias.unsqueeze(1))


def _damping(values: Tensor, ridge: float) -> Tensor:
    """λ of a Gram matrix with these eigenvalues, or this diagonal: [g, 1]."""
    return ridge * values.mean(1, keepdim=True).clamp_min(1e-300)


def _ridged(gram: Tensor, right: Tensor, ridge: float) -> Tensor:
    """(C + λI)⁻¹ times the right-hand side; where rounding leaves no positive definite matrix, by eigenvalues."""
    damped = gram.clone()
    diagonal = damped.diagonal(dim1=1, dim2=2)
    diagonal += _damping(diagonal, ridge)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if not failed.any():
        return torch.cholesky_solve(right, factor)
    values, vectors = eigen(gram)
    values = values.clamp_min(0)
    return vectors @ (vectors.transpose(1, 2) @ right / (values + _damping(values, ridge)).unsqueeze(2))


def eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of symmetric matrices [g, i, i]. Divide and conquer does not converge on some that
    have hardly any rank; QR steps do, and are slower."""
    try:
        return torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:
        found = [scipy.linalg.eigh(each.cpu().numpy(), driver="ev") for each in gram]
        values, vectors = (torch.from_numpy(np.stack(side)).to(gram) for side in zip(*found, strict=True))
        return values, vectors
