"""Shapes of the commonest operators on plain tensors, in place of their meta kernels, which are Python and slow.

A function here takes the operator's own arguments and gives the result's shape, or None where the meta kernel has to
say it, or has to say what is wrong. It is only asked where all tensors are contiguous and of one floating dtype, so
that the result is as well.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Shape = tuple[int, ...]


def shape_of(name: str, args: Sequence[Any], kwargs: Any) -> Shape | None:
    """The shape that the operator gives, or None. An operator in place has the shape of its twin.

    >>> shape_of("aten::add", (torch.empty(2, 1, 4), torch.empty(3, 1)), {})
    (2, 3, 4)
    >>> shape_of("aten::conv2d", (torch.empty(1, 3, 8, 8), torch.empty(6, 3, 3, 3), None, [2, 2], [1, 1]), {})
    (1, 6, 4, 4)
    """
    shape = _SHAPES.get(name.rstrip("_"))
    if shape is None or kwargs:
        return None
    tensors = [arg for arg in (args[0] if isinstance(args[0], list) else args) if isinstance(arg, torch.Tensor)]
    dtype = tensors[0].dtype if tensors else torch.bool
    if not dtype.is_floating_point or not all(t.dtype is dtype and t.is_contiguous() for t in tensors):
        return None
    return shape(*args)


def _elementwise(a: Any, b: Any) -> Shape | None:
    if isinstance(a, torch.Tensor) and isinstance(b, (int, float)):
        return tuple(a.shape)
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return None
    one, other = tuple(a.shape), tuple(b.shape)
    if one == other:
        return one
    rank = max(len(one), len(other))
    pairs = list(zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other, strict=True))
    fits = all(m == n or 1 in (m, n) for m, n in pairs)
    return tuple(n if m == 1 else m for m, n in pairs) if fits else None


def _convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Shape | None:
    spatial = weight.dim() - 2
    fits = x.dim() == spatial + 2 and x.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0
    if not fits or isinstance(padding, str) or bias is not None and bias.shape != weight.shape[:1]:
        return None
    steps, borders, gaps = (tuple(v) * (spatial // len(v)) if isinstance(v, (list, tuple)) else (v,) * spatial
                            for v in (stride, padding, dilation))
    places = zip(x.shape[2:], weight.shape[2:], steps, borders, gaps, strict=True)
    lengths = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in places]
    return (x.shape[0], weight.shape[0], *lengths) if min(lengths) > 0 else None


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Shape | None:
    fits = weight.dim() == 2 and x.dim() > 1 and x.shape[-1] == weight.shape[1]
    if not fits or bias is not None and bias.shape != weight.shape[:1]:
        return None
    return (*x.shape[:-1], weight.shape[0])


def _adaptive_pool(x: torch.Tensor, size: Sequence[int]) -> Shape | None:
    return (*x.shape[:-len(size)], *size) if x.dim() == len(size) + 2 and min(size) > 0 else None


def _cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> Shape | None:
    first = tensors[0].shape
    if not -len(first) <= dim < len(first):
        return None
    before, after = first[:dim], first[dim + 1:] if dim != -1 else ()
    if any(len(t.shape) != len(first) or t.shape[:dim] != before or dim != -1 and t.shape[dim + 1:] != after
           for t in tensors):
        return None
    return (*before, sum(t.shape[dim] for t in tensors), *after)


_SHAPES: dict[str, Callable[..., Shape | None]] = {
    **dict.fromkeys(("aten::add", "aten::sub", "aten::mul", "aten::div"), _elementwise),
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::conv3d"), _convolution),
    **dict.fromkeys(("aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d", "aten::adaptive_avg_pool3d"),
                    _adaptive_pool),
    "aten::linear": _linear,
    "aten::cat": _cat,
}
