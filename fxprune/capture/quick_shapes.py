"""Results of the commonest operators on the meta device, where the meta kernel is Python and takes up to a millisecond.

A fifth of the time of compressing a small net goes into a handful of operators: normalisations and activations, which
give a tensor like their first operand, arithmetic, convolutions, linear layers, attention, adaptive pools and
concatenations, whose shapes are one line. What does not fit is left to the meta kernel, which says as well what is
wrong.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

Shape = tuple[int, ...]
LIKE_FIRST = {f"aten::{name}" for name in """
batch_norm layer_norm group_norm instance_norm rms_norm
relu relu6 leaky_relu elu selu celu gelu silu mish softplus sigmoid tanh hardtanh hardswish hardsigmoid
""".split()}
ELEMENTWISE = {f"aten::{name}" for name in ("add", "sub", "mul", "div")}
DROPOUT = "aten::dropout"


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
    if base in ELEMENTWISE:
        return None if kwargs else _elementwise(name, *args)
    if base == DROPOUT:
        return _like(args[0], name) if len(args) == 3 and args[2] and args[0].is_floating_point() else None
    shape = _SHAPES.get(name)
    if shape is None or not _KEYWORDS.issuperset(kwargs):
        return None
    tensors = [arg for arg in (args[0] if name == "aten::cat" else args) if isinstance(arg, torch.Tensor)]
    dtype = tensors[0].dtype if tensors else torch.bool
    if not dtype.is_floating_point or not all(t.dtype is dtype for t in tensors):
        return None  # the result's dtype is then theirs
    if name not in _CONTIGUOUS and not all(t.is_contiguous() for t in tensors):
        return None  # and its strides
    sizes = shape(*args)
    return None if sizes is None else torch.empty(sizes, dtype=dtype, device="meta")


def _like(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """``empty_like``, which is Python on the meta device; without it where the memory has no gaps."""
    if name.endswith("_"):
        return tensor
    if tensor.is_contiguous() or _dense(tensor):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return torch.empty_like(tensor)


def _dense(tensor: torch.Tensor) -> bool:
    """Whether its elements lie side by side, in whatever order of dimensions."""
    steps = sorted((step, n) for step, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1)
    return all(step == math.prod(n for _, n in steps[:k]) for k, (step, _) in enumerate(steps))


def _elementwise(name: str, a: Any, b: Any = None, *more: Any) -> torch.Tensor | None:
    """Arithmetic of two operands of one dtype, or of one and a number."""
    tensors = [t for t in (a, b) if isinstance(t, torch.Tensor)]
    fits = isinstance(a, torch.Tensor) and a.is_floating_point() and isinstance(b, (torch.Tensor, int, float))
    shape = _broadcast(*tensors) if fits and not more else None
    if shape is None or tensors[-1].dtype is not a.dtype:
        return None
    if name.endswith("_"):
        return a if shape == a.shape else None
    if all(t.is_contiguous() for t in tensors):
        return torch.empty(shape, dtype=a.dtype, device="meta")
    whole = [t for t in tensors if t.shape == shape]
    rest = [t for t in tensors if t.shape != shape and t.numel() not in t.shape and t.numel() != 1]
    alike = whole and not rest and all(t.stride() == whole[0].stride() for t in whole) and _dense(whole[0])
    return torch.empty_strided(shape, whole[0].stride(), dtype=a.dtype, device="meta") if alike else None


def _broadcast(a: torch.Tensor, b: torch.Tensor | None = None) -> Shape | None:
    if b is None or a.shape == b.shape:
        return tuple(a.shape)
    rank = max(a.dim(), b.dim())
    pairs = list(zip((1,) * (rank - a.dim()) + a.shape, (1,) * (rank - b.dim()) + b.shape, strict=True))
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


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None, *more: Any
               ) -> Shape | None:
    fits = q.dim() > 2 and mask is None and q.shape[:-2] == k.shape[:-2] == v.shape[:-2] and len(more) < 3
    return (*q.shape[:-1], v.shape[-1]) if fits and q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2] else None


def _concatenation(tensors: Sequence[torch.Tensor], dim: int = 0) -> Shape | None:
    first = tensors[0].shape
    if not -len(first) <= dim < len(first) or any(t.dim() != len(first) for t in tensors):
        return None
    rests = {(t.shape[:dim], t.shape[dim:][1:]) for t in tensors}
    return (*first[:dim], sum(t.shape[dim] for t in tensors), *first[dim:][1:]) if len(rests) == 1 else None


_SHAPES: dict[str, Callable[..., Shape | None]] = {
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::conv3d"), _convolution),
    **dict.fromkeys(("aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d"), _adaptive_pool),
    "aten::linear": _linear,
    "aten::scaled_dot_product_attention": _attention,
    "aten::cat": _concatenation,
}
# What gives a contiguous result of whatever it is given, and the keywords that no shape depends on.
_CONTIGUOUS = {"aten::linear", "aten::scaled_dot_product_attention"}
_KEYWORDS = {"dropout_p", "is_causal", "scale"}
