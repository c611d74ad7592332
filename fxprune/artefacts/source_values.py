"""How values are spelled in a source file that imports torch and nothing of the user's: literals and functions."""

import builtins
import functools
import keyword
import math
import operator
import re
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from fxprune.capture.dispatch import BUILTINS
from fxprune.errors import UnsupportedError

# Where functions are looked for, the spelling that people prefer first.
_HOMES: tuple[tuple[str, Any], ...] = (
    ("F", nn.functional), ("torch", torch), ("math", math), ("operator", operator), ("torch.special", torch.special),
    ("torch.linalg", torch.linalg), ("torch.fft", torch.fft), ("torch.Tensor", torch.Tensor), ("", builtins),
    *BUILTINS,
)
_OPERATORS = (type(torch.ops.aten.add), type(torch.ops.aten.add.Tensor))
_PRINTED = (torch.dtype, torch.memory_format, torch.layout)
_OVERLOAD = re.compile(r"\w+\.\w+(\.\w+)?")


def is_name(text: str) -> bool:
    """Whether it can be written behind a dot or in front of an equals sign."""
    return text.isidentifier() and not keyword.iskeyword(text)


@functools.cache
def _functions() -> dict[int, tuple[str, Any]]:
    """Address -> spelling and the function itself, which keeps the address valid."""
    found: dict[int, tuple[str, Any]] = {}
    for path, home in _HOMES:
        for name in sorted(dir(home), key=lambda name: name.startswith("_")):
            value = getattr(home, name, None)
            if callable(value) and is_name(name):
                found.setdefault(id(value), (f"{path}.{name}".lstrip("."), value))
    return found


def function(target: Any) -> str:
    """The expression that names a function of torch, of Python's operators or of ``math``.

    Raises:
        UnsupportedError: it is of another package.

    >>> function(torch.relu), function(nn.functional.gelu), function(operator.iadd), function(torch.ops.aten.add.Tensor)
    ('torch.relu', 'F.gelu', 'operator.iadd', 'torch.ops.aten.add.Tensor')
    """
    known = _functions().get(id(target))
    if known is not None:
        return known[0]
    if isinstance(target, _OPERATORS):
        text = str(target)
        if text.startswith("aten.") or (text.startswith("torchvision.") and _OVERLOAD.fullmatch(text)):
            return f"torch.ops.{text}"
    described = f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', target)}"
    raise UnsupportedError(f"standalone source may only call functions of torch, and the graph calls {described}")


def literal(value: Any) -> str:
    """The expression that makes a value: numbers, strings, dtypes, devices and containers of them.

    Raises:
        UnsupportedError: it is an object of another kind.

    >>> literal([1, (2.0,), slice(None, 3), torch.float16, float("-inf")])
    "[1, (2.0,), slice(None, 3, None), torch.float16, float('-inf')]"
    """
    if value is None or value is Ellipsis or type(value) in (bool, int, str, complex):
        return "..." if value is Ellipsis else repr(value)
    if type(value) is float:
        return repr(value) if math.isfinite(value) else f"float('{value}')"
    if isinstance(value, _PRINTED):
        return repr(value)
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    if isinstance(value, slice):
        return f"slice({', '.join(map(literal, (value.start, value.stop, value.step)))})"
    if type(value) is dict:
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if type(value) is torch.Size:
        return bracketed(value, map(literal, value))
    if isinstance(value, (tuple, list)) and type(value).__name__ in ("tuple", "list", "immutable_list"):
        return bracketed(value, map(literal, value))
    # Whole numbers that keep more than their value: sizes, flags, NumPy's.
    if isinstance(value, (int, float)):
        return literal(int(value) if isinstance(value, int) else float(value))
    if isinstance(value, types.BuiltinFunctionType | types.FunctionType):
        return function(value)
    raise UnsupportedError(f"standalone source cannot spell a {type(value).__module__}.{type(value).__qualname__}")


def bracketed(like: Any, items: Iterator[str]) -> str:
    """Items in the brackets of a list, or of a tuple.

    >>> bracketed((1,), iter("1")), bracketed([], iter(""))
    ('(1,)', '[]')
    """
    listed = list(items)
    if isinstance(like, list):
        return f"[{', '.join(listed)}]"
    return f"({listed[0]},)" if len(listed) == 1 else f"({', '.join(listed)})"
