"""First and second moments of the rows that enter a layer and of the outputs that leave it: all that least squares
needs. They add up over batches, in float64, and no row is kept."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Rows that are multiplied at a time, and columns of a Gram matrix: those below its diagonal are those above it.
CHUNK, COLUMNS = 4096, 256


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over n rows x [g, n, i] and outputs y [g, n, o].

    Args:
        n: rows.
        x: Σ x, float64 [g, i].
        y: Σ y, float64 [g, o].
        xx: Σ x xᵀ, float64 [g, i, i].
        xy: Σ x yᵀ, float64 [g, i, o].
        yy: Σ y², float64 [g, o].
    """

    n: int
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(cls, rows: Tensor, outputs: Tensor) -> "Moments":
        """Of one batch.

        >>> m = Moments.of(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[2.0], [4.0]]]))
        >>> m.n, m.xx.item(), m.xy.item(), m.yy.item()
        (2, 10.0, 14.0, 20.0)
        """
        sums = MomentSums()
        sums.add_(rows, outputs)
        return sums.total()

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(getattr(self, f) + getattr(other, f) for f in ("n", "x", "y", "xx", "xy", "yy")))

    def centred(self) -> tuple[Tensor, Tensor]:
        """Σ (x−x̄)(x−x̄)ᵀ and Σ (x−x̄)(y−ȳ)ᵀ."""
        x = self.x.unsqueeze(2) / max(self.n, 1)
        return self.xx - x @ self.x.unsqueeze(1), self.xy - x @ self.y.unsqueeze(1)

    def about(self, x: Tensor, y: Tensor) -> "Moments":
        """Of x − x₀ and y − y₀, for x₀ [g, i] and y₀ [g, o].

        >>> m = Moments.of(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[2.0], [4.0]]]))
        >>> shifted = m.about(torch.tensor([[2.0]]).double(), torch.tensor([[3.0]]).double())
        >>> shifted.x.item(), shifted.xx.item(), shifted.xy.item(), shifted.yy.item()
        (0.0, 2.0, 2.0, 2.0)
        """
        mean = self.x - self.n * x
        xx, xy = (torch.baddbmm(whole, x.unsqueeze(2), sums.unsqueeze(1), alpha=-1).baddbmm_(
            mean.unsqueeze(2), origin.unsqueeze(1), alpha=-1)
            for whole, sums, origin in ((self.xx, self.x, x), (self.xy, self.y, y)))
        return Moments(self.n, mean, self.y - self.n * y, xx, xy, self.yy - y * (2 * self.y - self.n * y))

    def error(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Σ (y − x·weight − bias)², float64 [g, o], of a weight [g, i, o] and a bias [g, o]."""
        explained = (weight * (self.xx @ weight - 2 * self.xy)).sum(1)
        shift = bias * (2 * (self.x.unsqueeze(1) @ weight).squeeze(1) - 2 * self.y + self.n * bias)
        return (self.yy + explained + shift).clamp_min(0)

    def spread(self) -> Tensor:
        """Σ (y − ȳ)², float64 [g, o]."""
        return (self.yy - self.y.square() / max(self.n, 1)).clamp_min(0)

    def predicted(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance of x·weight, float64 [g, o] each."""
        mean = (self.x.unsqueeze(1) @ weight).squeeze(1) / self.n
        square = (weight * (self.xx @ weight)).sum(1) / self.n
        return mean, (square - mean.square()).clamp_min(0)


class MomentSums:
    """Moments that grow by one batch after the other, in place.

    >>> sums = MomentSums()
    >>> sums.add_(torch.ones(1, 2, 3), torch.ones(1, 2, 1))
    >>> sums.add_(torch.ones(1, 4, 3), torch.ones(1, 4, 1))
    >>> moments = sums.total()
    >>> moments.n, moments.xx[0, 0].tolist(), moments.yy.item()
    (6, [6.0, 6.0, 6.0], 6.0)
    """

    def __init__(self) -> None:
        self._sums: Moments | None = None

    def add_(self, rows: Tensor, outputs: Tensor) -> None:
        """Rows [g, n, i] and outputs [g, n, o] of one batch."""
        if self._sums is None:
            (groups, _, i), o = rows.shape, outputs.shape[2]
            self._sums = Moments(0, *(rows.new_zeros(shape, dtype=torch.float64) for shape in (
                (groups, i), (groups, o), (groups, i, i), (groups, i, o), (groups, o))))
        for x, y in zip(rows.split(CHUNK, 1), outputs.split(CHUNK, 1), strict=True):
            self._sums = _added(self._sums, x.double(), y.double())

    def total(self) -> Moments:
        """Of everything so far, of which there must be something; nothing is added any more."""
        assert self._sums is not None, "of at least one batch"
        gram = self._sums.xx
        for start in range(0, gram.shape[1], COLUMNS):
            end = start + COLUMNS
            gram[:, end:, start:end] = gram[:, start:end, end:].transpose(1, 2)
        return self._sums


def _added(sums: Moments, x: Tensor, y: Tensor) -> Moments:
    xt = x.transpose(1, 2)
    for start in range(0, xt.shape[1], COLUMNS):
        sums.xx[:, start:start + COLUMNS, start:].baddbmm_(xt[:, start:start + COLUMNS], x[:, :, start:])
    sums.xy.baddbmm_(xt, y)
    sums.x.add_(x.sum(1))
    sums.y.add_(y.sum(1))
    sums.yy.add_(y.square().sum(1))
    return replace(sums, n=sums.n + x.shape[1])
