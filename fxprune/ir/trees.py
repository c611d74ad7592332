"""Nested values: the arguments of operators, and whatever a model returns."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    return (tensor for _, tensor in _tensors(value, (), ()))


def named_tensors_in(value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The same, each with its path.

    >>> [name for name, _ in named_tensors_in({"logits": torch.zeros(1), "states": (torch.zeros(1), torch.ones(1))})]
    ['logits', 'states.0', 'states.1']
    """
    return ((".".join(map(str, path)), tensor) for path, tensor in _tensors(value, (), ()))


def _tensors(value: Any, around: tuple[int, ...], path: tuple[Any, ...]
             ) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
    """``around`` are the containers that it lies in, one of which it may be."""
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    if id(value) in around or isinstance(value, (torch.nn.Module, type)):
        return
    for key, item in _items(value):
        yield from _tensors(item, (*around, id(value)), (*path, key))


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return list(vars(value).items()) if hasattr(value, "__dict__") and not callable(value) else []
