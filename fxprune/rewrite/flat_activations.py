"""What a layer need not get right: outputs that the activation behind it makes equal.

Where z = a·y + s goes into an activation r that is constant below ``low`` and above ``high`` and straight in between
(a ReLU, ReLU6, hardtanh), an output is right as soon as it lies where the original's does (Zhang, Zou, He, Sun,
"Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016, the non-linear case):

    min over W, b of  Σ (r(z*) − r(z))²,  here in rounds: where z* and z lie in the same flat part, the target becomes
    what the layer gives already; where z* alone does, the edge of that part; then least squares again.

Every round is a least-squares problem of the same Gram matrix. It is no descent, since an output that should show and
does not is still drawn to where it belongs; so rounds go on as long as held-out rows show less error.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fxprune.planning.moments import Moments

# A channel whose scale is smaller hardly reaches the activation.
FAINT = 1e-6


@dataclass(frozen=True, eq=False)
class Behind:
    """Between a layer's outputs y [g, n, o] and an activation: z = scale·y + shift.

    Args:
        low, high: below and above which the activation is constant.
        scale: [g, 1, o].
        shift: [g, n, o], or what broadcasts to that.
    """

    low: float
    high: float
    scale: Tensor
    shift: Tensor

    def reached(self, outputs: Tensor) -> Tensor:
        """z, of outputs of the layer [g, n, o]."""
        return torch.addcmul(self.shift, self.scale, outputs)

    def shown(self, reached: Tensor) -> Tensor:
        """What can be told of z behind the activation."""
        return reached.clamp(self.low, self.high)

    def target(self, wanted: Tensor, aim: Tensor, reached: Tensor) -> Tensor:
        """What to aim at, where the outputs ``wanted``, which reach ``aim``, would be right, and z is ``reached``.

        >>> relu = Behind(0.0, torch.inf, torch.tensor([[[2.0]]]), torch.tensor([[[1.0]]]))
        >>> wanted, now = torch.tensor([[[-3.0], [-3.0], [4.0]]]), torch.tensor([[[-2.0], [1.0], [1.0]]])
        >>> relu.target(wanted, relu.reached(wanted), relu.reached(now)).flatten().tolist()
        [-2.0, -0.5, 4.0]
        """
        edge = torch.where(aim <= self.low, reached.clamp(max=self.low), aim)
        if self.high < torch.inf:
            edge = torch.where(aim >= self.high, reached.clamp(min=self.high), edge)
        return torch.addcmul(wanted, edge - aim, torch.where(self.scale.abs() <= FAINT, 0.0, 1 / self.scale))


@dataclass(frozen=True, eq=False)
class Shown:
    """Sums over rows x and what is shown of targets and outputs; they add up over batches.

    Args:
        y, xy, yy: Σ t [g, o], Σ x tᵀ [g, i, o], Σ t² [g, o] of the targets t for the last outputs that were tried.
        errors: Σ (shown target − shown outputs)² of each that was tried.
        n, first, second: how many rows, and Σ and Σ² of the shown targets [g, o].
    """

    y: Tensor
    xy: Tensor
    yy: Tensor
    errors: Tensor
    n: int
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, rows: Tensor, wanted: Tensor, behind: Behind, tried: list[tuple[Tensor, Tensor]]) -> "Shown":
        """Of rows [g, n, i], outputs that would be right [g, n, o], and layers to try, [g, i, o] and [g, o]."""
        layers = [(weight.to(rows), bias.to(rows)) for weight, bias in tried]
        reached = [behind.reached(torch.baddbmm(bias.unsqueeze(1), rows, weight)) for weight, bias in layers]
        aim = behind.reached(wanted)
        right, target = behind.shown(aim), behind.target(wanted, aim, reached[-1])
        errors = torch.stack([_total((right - behind.shown(z)).square()).sum() for z in reached])
        return cls(_total(target), (rows.transpose(1, 2) @ target).double(), _total(target.square()), errors,
                   rows.shape[1], _total(right), _total(right.square()))

    def __add__(self, other: "Shown") -> "Shown":
        return Shown(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def aimed(self, moments: Moments) -> Moments:
        """Moments of the same rows, with these targets."""
        return Moments(moments.n, moments.x, self.y, moments.xx, self.xy, self.yy)

    def relative(self) -> Tensor:
        """The errors in units of the shown targets' variance."""
        spread = (self.second - self.first.square() / max(self.n, 1)).sum()
        return self.errors / (spread if spread > 0 else 1.0)


def _total(values: Tensor) -> Tensor:
    return values.sum(1, dtype=torch.float64)
