"""Depthwise convolutions in double precision, for which torch has no kernel of its own: it convolves channel by
channel, and takes up to seventy times as long as in single precision."""

import itertools
from typing import Any

import torch
from torch.nn import functional as F

# Beyond this many places a kernel is no longer cheaper to walk over.
PLACES = 256


def convolve(func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """What ``func`` (a convolution of any rank) gives; over one channel a group as a sum over the kernel's places.

    >>> x, weight = torch.randn(2, 4, 6, 6).double(), torch.randn(4, 1, 3, 3).double()
    >>> conv2d = torch.ops.aten.conv2d.default
    >>> args = (x, weight, None, [2, 1], [1, 0], [1, 2], 4)
    >>> torch.allclose(convolve(conv2d, args, {}), conv2d(*args))
    True
    """
    simple = len(args) == 7 and not kwargs and not isinstance(args[4], str)
    if not simple or not _is_depthwise(args[0], args[1], args[6]):
        return func(*args, **kwargs)
    x, weight, bias, *geometry, _ = args
    rank = weight.dim() - 2
    strides, paddings, dilations = (tuple(g) * (rank // len(g)) for g in geometry)
    x = F.pad(x, [p for padding in reversed(paddings) for p in (padding, padding)]) if any(paddings) else x
    reach = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
    lengths = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, strides, strict=True)]
    if min(lengths) <= 0:
        return func(*args)  # which says what is wrong
    out = x.new_zeros(x.shape[0], x.shape[1], *lengths)
    for place in itertools.product(*map(range, weight.shape[2:])):
        starts = [k * d for k, d in zip(place, dilations, strict=True)]
        cut = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, lengths, strides, strict=True)]
        seen: Any = (slice(None), slice(None), *cut)
        tap: Any = (slice(None), 0, *place)
        out.addcmul_(x[seen], weight[tap].view(-1, *[1] * rank))
    return out if bias is None else out.add_(bias.view(-1, *[1] * rank))


def _is_depthwise(x: torch.Tensor, weight: torch.Tensor, groups: int) -> bool:
    return groups == weight.shape[0] == x.shape[1] > 1 and weight.shape[1] == 1 and x.dtype is torch.float64 \
        and x.dim() == weight.dim() and x.is_cpu and weight[0].numel() <= PLACES
