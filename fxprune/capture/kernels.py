"""Meta kernels, each run once for every combination of operands.

Most of them are Python, and a network is the same few calls over and over: block after block, and all of them again in
the other mode. What a functional operator makes depends on shapes, strides, dtypes and numbers alone.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch


class Kernels:
    """Calls operators on meta tensors and remembers what came out.

    >>> kernels, x = Kernels(), torch.empty(2, 3, device="meta")
    >>> first, second = (kernels(torch.ops.aten.mul.Tensor, (x, 2.0), {}) for _ in range(2))
    >>> first is second, second.shape, len(kernels.known)
    (False, torch.Size([2, 3]), 1)
    """

    def __init__(self) -> None:
        self.known: dict[Any, Callable[[], Any]] = {}

    def __call__(self, func: Any, args: Any, kwargs: Any) -> Any:
        key = _key(func, args, kwargs)
        if key is None:
            return func(*args, **kwargs)
        make = self.known.get(key)
        if make is not None:
            return make()
        out = func(*args, **kwargs)
        make = _maker(out)
        if make is not None:
            self.known[key] = make
        return out


def _key(func: Any, args: Any, kwargs: Any) -> Any:
    """What the result depends on; None where it may share memory with an operand, or where that cannot be said."""
    if not _functional(func):
        return None
    try:
        key = (func, _described(args), _described(tuple(kwargs.items())))
        hash(key)
    except (TypeError, RuntimeError):  # an operand that cannot be hashed, or that has no strides
        return None
    return key


@cache
def _functional(func: Any) -> bool:
    schema = func._schema
    return all(entry.alias_info is None for entry in (*schema.arguments, *schema.returns))


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(map(_described, value))
    return type(value), value  # 1, 1.0 and True are equal, and promote differently


def _maker(out: Any) -> Callable[[], Any] | None:
    """Makes another result like this one, of tensors that own their memory."""
    if isinstance(out, torch.Tensor):
        if not out.is_meta or out.layout is not torch.strided or out.storage_offset():
            return None
        shape, stride, dtype = tuple(out.shape), out.stride(), out.dtype
        return lambda: torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    if type(out) in (tuple, list):
        makers = [_maker(item) for item in out]
        return None if None in makers else lambda: type(out)(make() for make in makers)
    return None
