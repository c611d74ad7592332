"""The tensors in nested values: arguments, and whatever a model returns."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch


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
