"""Set attributes of modules, and numbers inside of what they hold: tuples, dictionaries, configurations."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from fxprune.capture.sizes import Attribute


def assign(small: nn.Module, values: Mapping[Attribute, int]) -> None:
    """Set attributes of modules. An object that several modules share is copied for those that need it otherwise."""
    changed: dict[tuple[str, str], dict[tuple[Any, ...], int]] = {}
    for attribute, number in values.items():
        changed.setdefault((attribute.module, attribute.keys[0]), {})[attribute.keys[1:]] = number
    taken: dict[int, dict[tuple[Any, ...], int]] = {}
    for (path, name), numbers in changed.items():
        module = small.get_submodule(path)
        held = getattr(module, name)
        shared = taken.setdefault(id(held), {}) if hasattr(held, "__dict__") else {}
        own = any(shared.get(keys, number) != number for keys, number in numbers.items())
        shared.update(() if own else numbers)
        for keys, number in numbers.items():
            if _at(held, keys) != number:
                held = replaced(held, keys, number, own)
                own = False
        vars(module)[name] = held


def number_at(root: nn.Module, attribute: Attribute) -> Any:
    """What an attribute is now."""
    first, *rest = attribute.keys
    return _at(getattr(root.get_submodule(attribute.module), first), tuple(rest))


def _at(held: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        held = vars(held)[key] if hasattr(held, "__dict__") else held[key]
    return held


def replaced(held: Any, keys: tuple[Any, ...], number: int, own: bool) -> Any:
    """A value with the number at ``keys`` in it replaced; an object is changed itself, or its copy where ``own``.

    >>> replaced((1, [2, 3]), (1, 0), 5, False)
    (1, [5, 3])
    """
    if not keys:
        return number
    if hasattr(held, "__dict__"):
        held = copy.copy(held) if own else held
        vars(held)[keys[0]] = replaced(vars(held)[keys[0]], keys[1:], number, own)
        return held
    items = dict(held) if isinstance(held, dict) else dict(enumerate(held))
    items[keys[0]] = replaced(items[keys[0]], keys[1:], number, own)
    return items if isinstance(held, dict) else type(held)(items.values())
