"""Nests that cannot be changed: what the fields of couplings and plans are made of."""

from collections.abc import Iterator, Mapping
from typing import Any


class Frozen(Mapping[Any, Any]):
    """A read-only dictionary that, unlike ``types.MappingProxyType``, pickles and deep-copies.

    >>> Frozen({"a": 1}) == {"a": 1}, Frozen(a=1)
    (True, Frozen({'a': 1}))
    """

    __slots__ = ("_items",)

    def __init__(self, *args: Any, **kwargs: Any):
        self._items: dict[Any, Any] = dict(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Frozen({self._items!r})"


def freeze(value: Any) -> Any:
    """Dictionaries become `Frozen`, lists become tuples, at any depth.

    >>> freeze({"a": [1, {"b": 2}]})
    Frozen({'a': (1, Frozen({'b': 2}))})
    """
    if isinstance(value, Mapping):
        return Frozen({key: freeze(item) for key, item in value.items()})
    if isinstance(value, tuple) and value and isinstance(value[0], int | float):
        return value  # index lists and scores, which are long
    return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value


def thaw(value: Any) -> Any:
    """The inverse, for JSON: dictionaries and lists.

    >>> thaw(freeze({"a": [1, {"b": 2}]}))
    {'a': [1, {'b': 2}]}
    """
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    return list(map(thaw, value)) if isinstance(value, list | tuple) else value
