"""Soft weight-sharing (Ullrich, Meeds, Welling, "Soft Weight-Sharing for Neural Network Compression", ICLR 2017):
weights are drawn to the components of a mixture of Gaussians that is learnt along with them; one lies at zero."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from fxprune.errors import InputError
from fxprune.planning.whole_weights import whole
from fxprune.training.arguments import number
from fxprune.training.sharding import local

# Shape and rate of the Gamma distributions over precisions: of the component at zero, and of the others.
ZERO, OTHERS = (5e3, 2.0), (250.0, 0.1)
# Components that are nearer than this to each other (KL) are one.
SAME = 1e-10
# Weights that are compared with all components at a time.
CHUNK = 1 << 18


class SoftSharing(nn.Module):
    """τ · −Σ_w log Σ_j π_j N(w; μ_j, 1/λ_j) − Σ_j log Gamma(λ_j), to be added to the loss; μ₀ = 0 and π₀ are fixed.

    Its own parameters are to be trained as well: the paper takes Adam, 5e-4 for weights, 1e-4 for ``means`` and 3e-3
    for ``log_precisions`` and ``logits``, for 30 epochs. Then `quantise_`.

    Args:
        components: how many Gaussians, that at zero included.
        strength: τ.
        at_zero: π₀, how much of the mixture lies at zero.
        spread, deviation: the other means begin evenly spaced in ±spread, all with this standard deviation.

    Raises:
        InputError: numbers that make no sense.

    >>> penalty = SoftSharing(components=3)
    >>> penalty.all_means.tolist()
    [0.0, -0.6000000238418579, 0.6000000238418579]
    >>> loss = penalty(nn.Linear(4, 2))
    >>> loss.requires_grad
    True
    """

    def __init__(self, components: int = 16, strength: float = 0.003, at_zero: float = 0.99, spread: float = 0.6,
                 deviation: float = 0.25):
        super().__init__()
        if isinstance(components, bool) or not isinstance(components, int) or components < 2:
            raise InputError(f"components must be an integer >= 2, got {components!r}; write components=16")
        if not 0 < at_zero < 1:
            raise InputError(f"at_zero must be a fraction in (0, 1), got {at_zero!r}; write at_zero=0.99")
        self.strength, self.at_zero = number("strength", strength, "strength=0.003"), at_zero
        others = components - 1
        self.means = nn.Parameter(torch.linspace(-spread, spread, others))
        self.log_precisions = nn.Parameter(torch.full((components,), -2 * math.log(deviation)))
        self.logits = nn.Parameter(torch.zeros(others))

    @property
    def all_means(self) -> Tensor:
        """μ [components]."""
        return torch.cat([self.means.new_zeros(1), self.means])

    @property
    def log_proportions(self) -> Tensor:
        """log π [components]."""
        others = math.log(1 - self.at_zero) + self.logits.log_softmax(0)
        return torch.cat([others.new_full((1,), math.log(self.at_zero)), others])

    def forward(self, model: nn.Module) -> Tensor:
        """The loss term over all parameters of at least two dimensions; shards are gathered, a tensor at a time, so
        that the mixture's own gradients are the same on every rank."""
        parts = [self._log_joint(chunk).logsumexp(1).sum() for p in _weights(model) for chunk in
                 torch.split(whole(p).reshape(-1), CHUNK)]
        return -self.strength * torch.stack(parts).sum() - self._log_prior()

    @torch.no_grad()
    def quantise_(self, model: nn.Module) -> int:
        """Set every weight to the mean of the component that most likely made it; how many components are left.

        Components that have become the same are merged first, by their proportions.
        """
        means, variances, logs = _merged(self.all_means, (-self.log_precisions).exp(), self.log_proportions)
        for parameter in _weights(model):
            for chunk in torch.split(local(parameter).view(-1), CHUNK):
                nearest = (logs + _log_normal(chunk, means, variances)).argmax(1)
                chunk.copy_(means[nearest])
        return len(means)

    def _log_joint(self, weights: Tensor) -> Tensor:
        return self.log_proportions + _log_normal(weights, self.all_means, (-self.log_precisions).exp())

    def _log_prior(self) -> Tensor:
        shape, rate = (self.log_precisions.new_tensor([ZERO[k]] + [OTHERS[k]] * len(self.means)) for k in (0, 1))
        log = shape * rate.log() - torch.lgamma(shape) + (shape - 1) * self.log_precisions
        return (log - rate * self.log_precisions.exp()).sum()


def _weights(model: nn.Module) -> list[Any]:
    return [p for p in model.parameters() if p.dim() >= 2 and p.is_floating_point()]


def _log_normal(weights: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """log N(w; μ_j, σ_j²): [weights, components]."""
    return -0.5 * ((weights[:, None] - means).square() / variances + (2 * math.pi * variances).log())


def _merged(means: Tensor, variances: Tensor, logs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The components without those that are the same as an earlier one; the first stays where it is, at zero.

    >>> found = _merged(torch.tensor([0.0, 1.0, 1.0]), torch.ones(3), torch.tensor([0.5, 0.25, 0.25]).log())
    >>> [part.tolist() for part in found[:2]], found[2].exp().tolist()
    ([[0.0, 1.0], [1.0, 1.0]], [0.5, 0.5])
    """
    kept: list[list[int]] = []
    for j in range(len(means)):
        home = next((group for group in kept if _distance(means, variances, j, group[0]) < SAME), None)
        if home is None:
            kept.append([j])
        else:
            home.append(j)
    shares = [logs[group].softmax(0) for group in kept]
    centres = torch.stack([means[group[0]] if group[0] == 0 else (share * means[group]).sum()
                           for group, share in zip(kept, shares, strict=True)])
    widths = torch.stack([(share * variances[group]).sum() for group, share in zip(kept, shares, strict=True)])
    return centres, widths, torch.stack([logs[group].logsumexp(0) for group in kept])


def _distance(means: Tensor, variances: Tensor, a: int, b: int) -> float:
    """KL(N_a ‖ N_b)."""
    ratio = float(variances[a] / variances[b])
    return 0.5 * (ratio - 1 - math.log(ratio) + float((means[a] - means[b]).square() / variances[b]))
