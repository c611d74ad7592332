"""Nested values: the arguments of operators, and whatever a model returns."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch

T = TypeVar("T")
# What arguments mostly are, besides tensors.
_PLAIN = {int, float, bool, str, type(None)}


def leaves(tree: Any, kind: type[T]) -> list[T]:
    """All of a kind in nested arguments, in order: what an operator's schema can nest, quicker than ``pytree``.

    >>> leaves([1, {"a": (2, "b")}], int)
    [1, 2]
    """
    found: list[T] = []
    _collect(tree, kind, found)
    return found


def _collect(tree: Any, kind: type[T], found: list[T]) -> None:
    if isinstance(tree, kind):
        found.append(tree)
    elif type(tree) in _PLAIN:
        return
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            _collect(item, kind, found)
    elif isinstance(tree, dict):
        for item in tree.values():
            _collect(item, kind, found)
    elif isinstance(tree, slice):
        _collect((tree.start, tree.stop, tree.step), kind, found)


def mapped(tree: Any, change: Callable[[Any], Any], kind: type) -> Any:
    """The same nest with everything of a kind replaced by ``change`` of it.

    >>> mapped([1, {"a": (2, "b")}], lambda n: -n, int)
    [-1, {'a': (-2, 'b')}]
    """
    if isinstance(tree, kind):
        return change(tree)
    if type(tree) in _PLAIN:
        return tree
    if isinstance(tree, (list, tuple)):
        items = [mapped(item, change, kind) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    if isinstance(tree, dict):
        return {key: mapped(item, change, kind) for key, item in tree.items()}
    return tree


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in containers, dataclasses, and objects that hold tensors as attributes, in order; what stands in two
    places counts twice.

    >>> shared = [torch.zeros(1)]
    >>> len(list(tensors_in({"a": shared, "b": shared})))
    2
    """
    yield from _tensors(value, ())


def _tensors(value: Any, around: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """``around`` are the containers that it lies in, one of which it may be."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    if id(value) in around or isinstance(value, (torch.nn.Module, type)):
        return
    for item in _items(value):
        yield from _tensors(item, (*around, id(value)))


def _items(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return list(vars(value).values()) if hasattr(value, "__dict__") and not callable(value) else []
