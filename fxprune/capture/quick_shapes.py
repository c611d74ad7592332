"""Results of the commonest operators on the meta device, where the meta kernel is Python and takes up to a millisecond.

A fifth of the time of compressing a small net goes into a handful of operators: normalisations and activations, which
give a tensor like their first operand, and convolutions, linear layers, adaptive pools and products, whose shapes are
one line. What does not fit is left to the meta kernel, which says as well what is wrong.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Shape = tuple[int, ...]
LIKE_FIRST = {f"aten::{name}" for name in """
batch_norm layer_norm group_norm instance_norm rms_norm
relu relu6 leaky_relu elu selu celu gelu silu mish softplus sigmoid tanh hardtanh hardswish hardsigmoid
""".split()}


def quick(name: str, args: Sequence[Any], kwargs: Any) -> torch.Tensor | None:
    """A meta tensor like the operator's result (in place: its first operand), or None.

    >>> image, weight = (torch.empty(shape, device="meta") for shape in ((1, 3, 8, 8), (6, 3, 3, 3)))
    >>> quick("aten::conv2d", (image, weight, None, [2, 2], [1, 1]), {}).shape
    torch.Size([1, 6, 4, 4])
    >>> quick("aten::relu_", (image,), {}) is image, quick("aten::roll", (image, 1), {})
    (True, None)
    """
    base = name.rstrip("_")
    if base in LIKE_FIRST:
        return _like(args[0], name) if args[0].is_floating_point() else None
    shape = _SHAPES.get(name)
    if shape is None or kwargs:
        return None
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    dtype = tensors[0].dtype if tensors else torch.bool
    if not dtype.is_floating_point or not all(t.dtype is dtype and t.is_contiguous() for t in tensors):
        return None  # the result's dtype and strides are then theirs
    sizes = shape(*args)
    return None if sizes is None else torch.empty(sizes, dtype=dtype, device="meta")


def _like(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """``empty_like``, which is Python on the meta device; without it where the memory format is plain."""
    if name.endswith("_"):
        return tensor
    if tensor.is_contiguous() or tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return torch.empty_like(tensor)


def _elementwise(a: Any, b: Any) -> Shape | None:
    if isinstance(a, torch.Tensor) and isinstance(b, (int, float)):
        return tuple(a.shape)
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.dim() != b.dim():
        return None
    pairs = list(zip(a.shape, b.shape, strict=True))
    return tuple(n if m == 1 else m for m, n in pairs) if all(m == n or 1 in (m, n) for m, n in pairs) else None


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
    return (*x.shape[:-1], weight.shape[0]) if fits and (bias is None or bias.shape == weight.shape[:1]) else None


def _adaptive_pool(x: torch.Tensor, size: Sequence[int]) -> Shape | None:
    return (*x.shape[:-len(size)], *size) if x.dim() == len(size) + 2 and min(size) > 0 else None


_SHAPES: dict[str, Callable[..., Shape | None]] = {
    **dict.fromkeys(("aten::add", "aten::mul"), _elementwise),
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::conv3d"), _convolution),
    **dict.fromkeys(("aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d"), _adaptive_pool),
    "aten::linear": _linear,
}
