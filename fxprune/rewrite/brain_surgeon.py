"""The rest of a layer takes over what its removed inputs carried: the exact update of Optimal Brain Surgeon.

With H the damped covariance of the original's own inputs and M those that go, the rest moves by −W_M (H⁻¹_MM)⁻¹ H⁻¹_M,:
one input at a time, and H⁻¹ is downdated (Hassibi and Stork, NIPS 1992; for structures Kurtić et al., "ZipLM", NeurIPS
2023, equation 3). It looks at each layer alone: what earlier layers lost is left to them.
"""

from torch import Tensor

from fxprune.planning.criteria.reconstruction import damped_inverse, surgeon_step_
from fxprune.planning.moments import Moments
from fxprune.rewrite.least_squares import Solution


def take_over(fit: Moments, held: Moments, weight: Tensor, bias: Tensor, read: Tensor, intercept: bool) -> Solution:
    """The weight, zero where inputs went; measured on the held-out rows, and made from all.

    Args:
        fit, held: moments of the original's rows [g, n, i] and its outputs at the kept channels.
        weight: the original's, [g, i, o].
        bias: [g, o].
        read: which inputs stay, bool [g, i].
        intercept: whether the bias may move.
    """
    weight, bias = weight.double(), bias.double()
    cut = weight * read.to(weight.device).unsqueeze(2)
    scale = float(held.spread().sum()) or 1.0
    before = float(held.error(cut, bias).sum()) / scale
    after = float(held.error(*_updated(fit, weight, bias, read, intercept)).sum()) / scale
    return Solution(*_updated(fit + held, weight, bias, read, intercept), before, after, 0.0)


def _updated(moments: Moments, weight: Tensor, bias: Tensor, read: Tensor, intercept: bool) -> tuple[Tensor, Tensor]:
    weight, inverse = weight.clone(), damped_inverse(moments.centred()[0] / moments.n)
    for group, stays in enumerate(read):
        for index in (~stays).nonzero():
            surgeon_step_(inverse[group], weight[group], index)
    if not intercept:
        return weight, bias
    return weight, (moments.y - (moments.x.unsqueeze(1) @ weight).squeeze(1)) / moments.n
