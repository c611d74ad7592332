"""Objects that a model returns and that hold tensors (a cache of keys and values, a distribution): a graph knows
tensors and containers, so that they are taken apart, and put together again by a module at the end of the graph."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxprune.capture.sizes import Fraction, Size

# What nodes can stand for.
_LEAVES = (torch.Tensor, Size, Fraction, torch.device)


@dataclass(frozen=True)
class Slot:
    """Where a leaf was taken out."""

    index: int


@dataclass(frozen=True)
class Shape:
    """In place of a ``torch.Size``, which holds nothing but numbers."""

    items: tuple[Any, ...]


class Returned(nn.Module):
    """Puts one object together again.

    Args:
        skeleton: a copy of the object, with slots in place of its tensors and sizes.
    """

    def __init__(self, skeleton: Any):
        super().__init__()
        self.skeleton = skeleton
        self.key = _described(skeleton)

    def forward(self, *leaves: Any) -> Any:
        return _mapped(self.skeleton, Slot, lambda slot: leaves[slot.index], {})


def taken_apart(value: Any) -> tuple[Returned, Sequence[Any]]:
    """The module that makes another object like this one, and what it needs for that.

    >>> class Pair:
    ...     def __init__(self, a, b):
    ...         self.a, self.b = a, [b]
    >>> made, leaves = taken_apart(Pair(torch.zeros(1), torch.ones(1)))
    >>> made(*leaves).b
    [tensor([1.])]
    """
    leaves: list[Any] = []

    def slot(leaf: Any) -> Slot:
        leaves.append(leaf)
        return Slot(len(leaves) - 1)

    return Returned(_mapped(value, _LEAVES, slot, {})), leaves


def _mapped(value: Any, leaf: Any, change: Callable[[Any], Any], memo: dict[int, Any]) -> Any:
    """A copy with every leaf changed; what may stand in several places, or in itself, is copied once."""
    if isinstance(value, leaf):
        return change(value)
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, Shape):
        return torch.Size(_mapped(value.items, leaf, change, memo))
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_mapped(item, leaf, change, memo) for item in value]
        if isinstance(value, torch.Size):
            return Shape(tuple(items))
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if not isinstance(value, dict) and (not hasattr(value, "__dict__") or isinstance(value, (type, nn.Module))
                                        or callable(value)):
        return value
    new = memo[id(value)] = copy.copy(value)
    for key, item in value.items() if isinstance(value, dict) else ():
        dict.__setitem__(new, key, _mapped(item, leaf, change, memo))
    for name, item in getattr(value, "__dict__", {}).items():
        vars(new)[name] = _mapped(item, leaf, change, memo)
    return new


def _described(value: Any) -> str:
    """In words, so that two skeletons can be told apart."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_described(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"{type(value).__qualname__}({', '.join(map(_described, value))})"
    if isinstance(value, (Slot, Shape)) or not hasattr(value, "__dict__") or callable(value):
        return repr(value)
    return f"{type(value).__qualname__}{_described(vars(value))}"
