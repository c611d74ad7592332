"""First and second moments of the rows that enter a layer and of the outputs that leave it: all that least squares
needs. They add up over batches, in float64, and no row is kept."""

from dataclasses import dataclass

from torch import Tensor

# Rows that are multiplied at a time.
CHUNK = 4096


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

        >>> import torch
        >>> m = Moments.of(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[2.0], [4.0]]]))
        >>> m.n, m.xx.item(), m.xy.item(), m.yy.item()
        (2, 10.0, 14.0, 20.0)
        """
        parts = zip(rows.split(CHUNK, 1), outputs.split(CHUNK, 1), strict=True)
        found = [cls._of(x.double(), y.double()) for x, y in parts]
        return sum(found[1:], found[0])

    @classmethod
    def _of(cls, x: Tensor, y: Tensor) -> "Moments":
        xt = x.transpose(1, 2)
        return cls(x.shape[1], x.sum(1), y.sum(1), xt @ x, xt @ y, y.square().sum(1))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(getattr(self, f) + getattr(other, f) for f in ("n", "x", "y", "xx", "xy", "yy")))

    def centred(self) -> tuple[Tensor, Tensor]:
        """Σ (x−x̄)(x−x̄)ᵀ and Σ (x−x̄)(y−ȳ)ᵀ."""
        x = self.x.unsqueeze(2) / max(self.n, 1)
        return self.xx - x @ self.x.unsqueeze(1), self.xy - x @ self.y.unsqueeze(1)

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
