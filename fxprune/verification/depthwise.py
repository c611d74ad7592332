"""Depthwise convolutions in double precision, for which torch has no kernel of its own: it convolves channel by
channel, and takes up to seventy times as long as in single precision."""

import itertools
from typing import Any

import torch

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
    axes = list(zip(x.shape[2:], weight.shape[2:], strides, paddings, dilations, strict=True))
    lengths = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
    if min(lengths) <= 0:
        return func(*args)  # which says what is wrong
    # Channels last, since lengths are small here: each step then runs along all channels at once.
    x, places = x.movedim(1, -1).contiguous(), weight.flatten(1).t().contiguous()
    out, every = x.new_zeros(x.shape[0], *lengths, x.shape[-1]), (slice(None),)
    taps = [[_met(k * d - p, n, m, s) for k in range(kernel)]
            for (n, kernel, s, p, d), m in zip(axes, lengths, strict=True)]
    for met, place in zip(itertools.product(*taps), places, strict=True):
        if all(met):
            written, read = zip(*met, strict=True)
            out[every + written].addcmul_(x[every + read], place)
    out = out if bias is None else out.add_(bias)
    return out.movedim(-1, 1).contiguous()


def _met(shift: int, length: int, outputs: int, stride: int) -> tuple[slice, slice] | tuple[()]:
    """Of one place of the kernel, along one dimension: the outputs for which it does not lie in the padding, and the
    inputs that it then lies on; nothing where there are none. At small lengths most places meet padding alone.

    >>> _met(-1, 4, 4, 1), _met(4, 4, 4, 1)
    ((slice(1, 4, None), slice(0, 3, 1)), ())
    """
    first, last = max(-(shift // stride), 0), min((length - 1 - shift) // stride, outputs - 1)
    start = first * stride + shift
    return (slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)) if first <= last else ()


def _is_depthwise(x: torch.Tensor, weight: torch.Tensor, groups: int) -> bool:
    return groups == weight.shape[0] == x.shape[1] > 1 and weight.shape[1] == 1 and x.dtype is torch.float64 \
        and x.dim() == weight.dim() and x.is_cpu and weight[0].numel() <= PLACES
