"""What reaches a batch norm now, and whether statistics made of it serve samples that they were not made from.

With m, s the mean and the deviation of what a norm puts out, the distance of two norms' outputs is (m − m′)² +
(s − s′)² per channel, the squared Fréchet distance of two normal distributions (Dowson and Landau, J. Multivariate
Analysis 1982, equation 4). What is wanted is that of the original's outputs, on the same samples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChannelMoments:
    """Of ``n`` values per channel, less a shift: their sum and the sum of their squares, float64 [c]."""

    n: int
    shift: Tensor
    x: Tensor
    xx: Tensor

    @classmethod
    def of(cls, inputs: Tensor, shift: Tensor, start: float, end: float) -> "ChannelMoments":
        """Of these shares of a batch [n, c, …], in the order of its samples; of one sample's places, if it is alone."""
        values = inputs.reshape(*inputs.shape[:2], -1)
        values = values if len(values) > 1 else values.transpose(0, 2)
        values = values[int(start * len(values)):int(end * len(values))] - shift.unsqueeze(1)
        wide = torch.promote_types(values.dtype, torch.float32)  # exact enough for one sample
        x, length = values.sum(2, dtype=wide), torch.linalg.vector_norm(values, dim=2, dtype=wide)
        return cls(len(values) * values.shape[2], shift, x.sum(0, dtype=torch.float64), length.double().square().sum(0))

    def __add__(self, other: "ChannelMoments") -> "ChannelMoments":
        """Of the values of both, less the same shift."""
        return ChannelMoments(self.n + other.n, self.shift, self.x + other.x, self.xx + other.xx)

    @property
    def mean(self) -> Tensor:
        return self.x / max(self.n, 1) + self.shift

    @property
    def variance(self) -> Tensor:
        return (self.xx / max(self.n, 1) - (self.x / max(self.n, 1)).square()).clamp_min(0)

    def normalised(self, statistics: tuple[Tensor, Tensor], eps: float, scale: Tensor | float, bias: Tensor | float
                   ) -> tuple[Tensor, Tensor]:
        """Mean and deviation of what a norm with these running statistics puts out, float64 [c]."""
        mean, variance = (value.double() for value in statistics)
        factor = scale * (variance + eps).rsqrt()
        return (self.mean - mean) * factor + bias, self.variance.sqrt() * abs(factor)


def distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Σ over channels of the squared Fréchet distance, in units of the first one's variance.

    >>> zero, one, two = (torch.tensor([float(k)]) for k in range(3))
    >>> distance((zero, one), (one, one)), distance((zero, one), (zero, two)), distance((one, two), (one, two))
    (1.0, 1.0, 0.0)
    """
    apart = sum(float((a - b).square().sum()) for a, b in zip(one, other, strict=True))
    return apart / (float(one[1].square().sum()) or 1.0)
