"""What a graph took for granted about the arguments of ``forward``: everything but the contents of tensors.

Python runs once, on the example: numbers, flags and whatever was left out are part of the graph from then on. The
result asks, first of all, whether it is called with what it was captured with.
"""

import cmath
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import fx

from fxprune.errors import InputError
from fxprune.ir.example_inputs import TensorSpec

_PLAIN = (bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device, torch.memory_format, torch.layout,
          slice, type(None), type(Ellipsis))
# How `pattern` marks what a graph cannot hold as it is; every tuple begins with one of these.
TENSOR, ITEMS, KEYS, OBJECT = "tensor", "items", "keys", "object"


def pattern(value: Any) -> Any:
    """What was given, as plain values and tuples of them: torch.fx writes no other nest into code.

    >>> pattern({"x": TensorSpec((2, 3), "float32"), "sizes": (1, np.float32(2))})
    ('keys', ('x', 'sizes'), ('tensor',), ('items', 1, 2.0))
    """
    if isinstance(value, (TensorSpec, torch.Tensor)):
        return (TENSOR,)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return (KEYS, tuple(value), *map(pattern, value.values()))
    if isinstance(value, (list, tuple)):
        return (ITEMS, *map(pattern, value))
    return value if isinstance(value, _PLAIN) else (OBJECT, _kind(value))


def is_plain(wanted: Any) -> bool:
    """Whether a pattern says all: that there is neither a tensor in it, nor an object of which only the kind is known.
    """
    if type(wanted) is not tuple:
        return True
    return wanted[0] not in (TENSOR, OBJECT) and all(map(is_plain, wanted[1:]))


def _kind(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


@fx.wrap
def as_captured(names: tuple[str, ...], values: tuple[Any, ...], wanted: tuple[Any, ...], left_out: tuple[str, ...]
                ) -> None:
    """The first statement of an emitted ``forward``.

    Args:
        names: of arguments; ``*args`` and ``**kwargs`` with their stars.
        values: what this call gives for them.
        wanted: the `pattern` of what they were.
        left_out: the names of those that the example left out.

    Raises:
        InputError: one of them is another.
    """
    for name, value, want in zip(names, values, wanted, strict=True):
        found = _difference(name, value, want)
        if found is not None:
            place, got, want = (name, value, None) if name in left_out and not name.startswith("**") else found
            raise InputError(f"fxprune: captured {was(place, want)}, and got {shown(got)}; {should_be(place, want)}, "
                             "or compress again with example_inputs like this call's")


fx.node.has_side_effect(as_captured)


def was(place: str, want: Any) -> str:
    """What an argument was, given its pattern; None where it was left out."""
    if want is None:
        return f"without {place}"
    if want == (TENSOR,):
        return f"with a tensor for {place}"
    return f"with {place}={written(want)}, which is a constant now"


def should_be(place: str, want: Any) -> str:
    """What to do about it in another call."""
    if want is None:
        return "leave it out"
    return "pass a tensor" if want == (TENSOR,) else f"pass {place}={written(want)}"


def _difference(place: str, got: Any, want: Any) -> tuple[str, Any, Any] | None:
    """The first place where ``got`` is not what was wanted: its name, what is there, and what should be."""
    if isinstance(got, np.generic):
        got = got.item()
    if type(want) is not tuple:
        alike = type(got) is type(want) and (got == want or _nan(got) and _nan(want))
    elif want[0] == TENSOR:
        alike = isinstance(got, torch.Tensor)
    elif want[0] == OBJECT:
        alike = not isinstance(got, torch.Tensor) and _kind(got) == want[1]
    elif want[0] == ITEMS:
        alike = isinstance(got, (list, tuple)) and len(got) == len(want) - 1
    else:  # of a mapping without items, an interpreter of graphs makes a list without items
        alike = isinstance(got, Mapping) or not got and not want[1]
    return _first(_inside(place, got, want)) if alike else (place, got, want)


def _first(triples: Iterable[tuple[str, Any, Any]]) -> tuple[str, Any, Any] | None:
    for place, got, want in triples:
        found = _difference(place, got, want)
        if found is not None:
            return found
    return None


def _inside(place: str, got: Any, want: Any) -> list[tuple[str, Any, Any]]:
    """What a container's items are called, what they are, and what they should be; None for what is not there."""
    if type(want) is not tuple or want[0] not in (ITEMS, KEYS):
        return []
    bare = place.lstrip("*")
    if want[0] == ITEMS:
        return [(f"{bare}[{k}]", got[k], want[k + 1]) for k in range(len(want) - 1)]
    wanted, given = dict(zip(want[1], want[2:], strict=True)), dict(got)
    return [(key if place.startswith("**") else f"{bare}[{key!r}]", given.get(key), wanted.get(key))
            for key in {**wanted, **given}]


def _nan(value: Any) -> bool:
    return isinstance(value, (float, complex)) and cmath.isnan(value)


def shown(value: Any) -> str:
    """A value, as messages show it."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    text = repr(value)
    return text if len(text) < 80 else f"a {type(value).__name__}"


def written(want: Any) -> str:
    """A pattern, as messages show it.

    >>> written(pattern({"x": torch.ones(1), "sizes": [1, None]}))
    "{'x': a tensor, 'sizes': [1, None]}"
    """
    if type(want) is not tuple:
        return repr(want)
    if want[0] == ITEMS:
        return f"[{', '.join(map(written, want[1:]))}]"
    if want[0] == KEYS:
        return f"{{{', '.join(f'{key!r}: {written(item)}' for key, item in zip(want[1], want[2:], strict=True))}}}"
    return f"a {want[-1]}"
