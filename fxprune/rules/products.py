"""Contractions with a weight, written as products of matrices.

Every call of a convolution, a linear layer, a matrix product or an ``einsum`` with one weight is, group by group,

    outputs [g, n, o] = rows [g, n, i] @ weight [g, i, o]  (+ bias [g, o])

with n positions (pixels, tokens, samples), i inputs of a position and o outputs. What is gathered over data (moments,
Gram matrices) and what is solved from it is said in these terms, and knows no operator.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fxprune.rules.einsum import parse
from fxprune.rules.operands import argument, nth


class Product(Protocol):
    """One call as a product of matrices.

    Attributes:
        x_at, weight_at: the places of its two factors among the call's `factors`.
        bias_at: the place of the bias among the arguments, or None.
    """

    @property
    def x_at(self) -> int: ...

    @property
    def weight_at(self) -> int: ...

    @property
    def bias_at(self) -> int | None: ...

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as [g, i, o]: a permutation of its entries."""
        ...

    def rows(self, x: Tensor, picked: Tensor) -> Tensor:
        """The inputs of these positions: [g, len(picked), i]."""
        ...

    def outputs(self, y: Tensor, picked: Tensor) -> Tensor:
        """The outputs at these positions: [g, len(picked), o]."""
        ...

    def channel_dim(self, y: Tensor) -> int | None:
        """The dimension of the output that holds its channels, where it is one."""
        ...


def positions(product: Product, y: Tensor, weight: Tensor) -> int:
    """How many positions n an output has."""
    groups, _, outputs = product.matrix(weight).shape
    return y.numel() // max(groups * outputs, 1)


def as_weight(product: Product, matrix: Tensor, like: Tensor) -> Tensor:
    """The weight whose matrix this is.

    >>> product = product_of("aten::linear", (torch.zeros(1, 3), torch.zeros(2, 3)), {}, 1)
    >>> weight = torch.arange(6.0).view(2, 3)
    >>> torch.equal(as_weight(product, product.matrix(weight), weight), weight)
    True
    """
    places = product.matrix(torch.arange(like.numel(), device=like.device).view(like.shape))
    flat = matrix.new_empty(like.numel())
    flat[places.reshape(-1)] = matrix.reshape(-1)
    return flat.view(like.shape)


@dataclass(frozen=True)
class Labelled:
    """A contraction that letters can say: ``inner`` is summed over, ``groups`` is in all three, ``outer`` is new."""

    x: tuple[str, ...]
    w: tuple[str, ...]
    out: tuple[str, ...]
    x_at: int = 0
    weight_at: int = 1
    bias_at: int | None = None

    @property
    def groups(self) -> list[str]:
        return [label for label in self.w if label in self.x and label in self.out]

    @property
    def inner(self) -> list[str]:
        return [label for label in self.w if label in self.x and label not in self.out]

    @property
    def outer(self) -> list[str]:
        return [label for label in self.w if label not in self.x]

    def matrix(self, weight: Tensor) -> Tensor:
        return _folded(weight, self.w, self.groups, self.inner, self.outer)

    def rows(self, x: Tensor, picked: Tensor) -> Tensor:
        places = [label for label in self.x if label in self.out and label not in self.w]
        return _folded(x, self.x, self.groups, places, self.inner)[:, picked]

    def outputs(self, y: Tensor, picked: Tensor) -> Tensor:
        places = [label for label in self.x if label in self.out and label not in self.w]
        return _folded(y, self.out, self.groups, places, self.outer)[:, picked]

    def channel_dim(self, y: Tensor) -> int | None:
        channels = [d for d, label in enumerate(self.out) if label in self.w]
        return channels[0] if len(channels) == 1 else None


def _folded(tensor: Tensor, labels: Sequence[str], *parts: list[str]) -> Tensor:
    order = [labels.index(label) for part in parts for label in part]
    sizes = [prod(tensor.shape[labels.index(label)] for label in part) for part in parts]
    return tensor.permute(order).reshape(sizes)


@dataclass(frozen=True)
class Convolution:
    """Any convolution: the rows are the patches under the kernel. A transposed one is an ordinary one, its kernel
    mirrored, over its input with zeros set in between."""

    kernel: tuple[int, ...]
    groups: int = 1
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    transposed: bool = False
    output_padding: Any = 0
    x_at: int = 0
    weight_at: int = 1
    bias_at: int | None = 2

    def matrix(self, weight: Tensor) -> Tensor:
        g, space = self.groups, len(self.kernel)
        parts = weight.reshape(g, weight.shape[0] // g, *weight.shape[1:])
        if self.transposed:
            dims = list(range(3, 3 + space))
            return parts.flip(dims).movedim(2, -1).flatten(1, -2)
        return parts.movedim(1, -1).flatten(1, -2)

    def rows(self, x: Tensor, picked: Tensor) -> Tensor:
        space = len(self.kernel)
        view = padded = self._padded(x if x.dim() == space + 2 else x.unsqueeze(0)).contiguous()
        for k, length in enumerate(self.kernel):
            reach = nth(self.dilation, k) * (length - 1) + 1
            view = view.unfold(2 + k, reach, 1 if self.transposed else nth(self.stride, k))
            view = view[..., ::nth(self.dilation, k)]
        view = view.movedim(1, 1 + space)
        places, strides = view.shape[:1 + space], view.stride()
        starts = _offsets(torch.unravel_index(picked.to(x.device), places), strides)
        patch = _offsets(torch.meshgrid(*(torch.arange(size, device=x.device) for size in view.shape[1 + space:]),
                                        indexing="ij"), strides[1 + space:]).reshape(-1)
        # By their places in memory: several times faster than by indices into a view whose parts overlap.
        parts = [padded.view(-1).index_select(0, (some.unsqueeze(1) + patch).view(-1)) for some in starts.split(256)]
        return torch.cat(parts).reshape(len(picked), self.groups, -1).transpose(0, 1)

    def outputs(self, y: Tensor, picked: Tensor) -> Tensor:
        last = y.movedim(self.channel_dim(y), -1)
        flat = last[torch.unravel_index(picked, last.shape[:-1])]
        return flat.reshape(len(picked), self.groups, -1).transpose(0, 1)

    def channel_dim(self, y: Tensor) -> int:
        return y.dim() - len(self.kernel) - 1

    def _padded(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for k in reversed(range(len(self.kernel))):
            reach = nth(self.dilation, k) * (self.kernel[k] - 1)
            pads += self._margins(reach, k)
            if self.transposed:
                x = _spread(x, 2 + k, nth(self.stride, k))
        return F.pad(x, pads) if any(pads) else x

    def _margins(self, reach: int, k: int) -> tuple[int, int]:
        padding = nth(self.padding, k)
        if padding == "same":
            return reach // 2, reach - reach // 2
        padding = 0 if padding == "valid" else padding
        if self.transposed:
            return reach - padding, reach - padding + nth(self.output_padding, k)
        return padding, padding


def _offsets(indices: Iterable[Tensor], strides: Sequence[int]) -> Tensor:
    return torch.stack([index * stride for index, stride in zip(indices, strides, strict=False)]).sum(0)


def _spread(x: Tensor, dim: int, stride: int) -> Tensor:
    """Zeros between the entries of one dimension, where a transposed convolution steps over them."""
    if stride == 1:
        return x
    shape = list(x.shape)
    shape[dim] = (shape[dim] - 1) * stride + 1
    wide = x.new_zeros(shape)
    wide[(slice(None),) * dim + (slice(None, None, stride),)] = x
    return wide


def _letters(count: int, first: str = "n") -> tuple[str, ...]:
    return tuple(f"{first}{k}" for k in range(count))


def _linear(args: Sequence[Any], kwargs: Mapping[str, Any], at: int) -> Product | None:
    places = _letters(args[0].dim() - 1)
    if args[1].dim() != 2:
        return None
    return Labelled((*places, "i"), ("o", "i"), (*places, "o"), bias_at=2)


def _matmul(args: Sequence[Any], kwargs: Mapping[str, Any], at: int) -> Labelled | None:
    a, b = args[0], args[1]
    x, weight = (b, a) if at == 0 else (a, b)
    if weight.dim() < 2 or x.dim() < 2 or weight.dim() > 2 and x.shape[:-2] != weight.shape[:-2]:
        return None
    # Leading dimensions are positions, or matrices of their own where the weight has them too.
    lead = _letters(x.dim() - 2)
    groups = lead if weight.dim() > 2 else ()
    if at == 0:
        return Labelled((*lead, "i", "n"), (*groups, "o", "i"), (*lead, "o", "n"), 1 - at, at)
    return Labelled((*lead, "n", "i"), (*groups, "i", "o"), (*lead, "n", "o"), 1 - at, at)


def _added(args: Sequence[Any], kwargs: Mapping[str, Any], at: int) -> Product | None:
    if at == 0 or kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        return None
    found = _matmul(args[1:], kwargs, at - 1)
    return None if found is None else Labelled(found.x, found.w, found.out, 3 - at, at, 0)


def _einsum(args: Sequence[Any], kwargs: Mapping[str, Any], at: int) -> Product | None:
    equation, tensors = args[0], args[1]
    if len(tensors) != 2:
        return None
    terms, out = parse(equation, [t.dim() for t in tensors])
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, tensors, strict=True):
        for label, size in zip(term, tensor.shape, strict=True):
            if sizes.setdefault(label, size) != size:
                return None  # broadcast
    w, x = terms[at], terms[1 - at]
    known = all(label in out or label in w for label in x) and all(label in out or label in x for label in w)
    if not known or any(len(set(labels)) != len(labels) for labels in (*terms, out)):
        return None
    return Labelled(tuple(x), tuple(w), tuple(out), 1 - at, at)


def _convolution(transposed: bool = False):
    def build(args: Sequence[Any], kwargs: Mapping[str, Any], at: int) -> Product | None:
        kwargs, tail = dict(kwargs), ("output_padding",) if transposed else ()
        names = ("stride", "padding", *tail, *(("groups", "dilation") if transposed else ("dilation", "groups")))
        found = {name: argument(args, kwargs, 3 + k, name, 0 if "padding" in name else 1)
                 for k, name in enumerate(names)}
        return Convolution(tuple(args[1].shape[2:]), transposed=transposed, **found)

    return build


def _general(args: Sequence[Any], kwargs: Mapping[str, Any], at: int) -> Product | None:
    stride, padding, dilation, transposed, output_padding, groups = args[3:9]
    return Convolution(tuple(args[1].shape[2:]), groups, stride, padding, dilation, transposed, output_padding)


PRODUCTS: dict[str, Callable[..., Product | None]] = {
    "aten::linear": _linear, "aten::einsum": _einsum,
    **dict.fromkeys(("aten::matmul", "aten::mm", "aten::bmm", "aten::linalg_matmul"), _matmul),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm"), _added),
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::conv3d"), _convolution()),
    **dict.fromkeys(("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d"),
                    _convolution(transposed=True)),
    **dict.fromkeys(("aten::convolution", "aten::_convolution"), _general),
}


def factors(op: str, args: Sequence[Any]) -> Sequence[Any]:
    """The tensors of a call among which its weight may be, by ``weight_at``."""
    return args[1] if op == "aten::einsum" else args


def product_of(op: str, args: Sequence[Any], kwargs: Mapping[str, Any], at: int) -> Product | None:
    """The call as a product of matrices.

    Args:
        op: the qualified name of the operator.
        args, kwargs: of the call, with tensors in them.
        at: which of its `factors` is the weight.

    Returns:
        None where the operator is no such contraction, or not of these shapes.
    """
    build = PRODUCTS.get(op)
    if build is None or at != 1 and build not in (_matmul, _einsum, _added):
        return None
    return build(args, kwargs, at)
