"""Functions that remember what they have given (``functools.lru_cache``): their caches outlive the run that filled
them.

A run under our eyes must not find what an earlier one has left, which no graph computes, and must leave nothing: the
user's model would be given a tensor without contents, or one of inference mode. A cache is emptied before such a run,
and after it if it holds anything: what is computed anew is the same.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from fxprune.capture.hooks import closure
from fxprune.capture.model_walk import named_modules
from fxprune.capture.randomness import scopes

_REMEMBERING: type = type(functools.cache(lambda: None))
# How methods lie in a class, besides as plain functions.
_WRAPPING = (staticmethod, classmethod, MethodType)
# How far from a module's methods through the functions that they name.
DEPTH = 4
_OTHERS = ("torch", "numpy", "fxprune", "functools")


@contextmanager
def fresh_caches(model: nn.Module) -> Iterator[None]:
    """Let the functions that the model's Python calls remember nothing from before, and nothing from now."""
    kinds: set[Any] = {type(module) for _, module in named_modules(model)}
    caches = list(dict.fromkeys(found for kind in kinds if not kind.__module__.startswith("torch.")
                                for found in memoised(kind)))
    _empty(caches)
    try:
        yield
    finally:
        _empty(caches)


def _empty(caches: list[Any]) -> None:
    for remembering in caches:
        if remembering.cache_info().currsize:
            remembering.cache_clear()


@functools.cache
def memoised(kind: type) -> tuple[Any, ...]:
    """The functions with a cache that the methods of a class may reach by name."""
    seen: set[int] = set()
    return tuple(dict.fromkeys(found for name, scope in scopes(kind)
                               for found in _reached(scope.get(name), DEPTH, seen)))


def _reached(value: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    if isinstance(value, _WRAPPING):
        value = value.__func__
    if isinstance(value, _REMEMBERING):
        yield value
        value = getattr(value, "__wrapped__", None)
    if not depth or id(value) in seen or not isinstance(value, FunctionType) or \
            (value.__module__ or "").startswith(_OTHERS):  # functions made by exec have none
        return
    seen.add(id(value))
    named = [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
    for further in (*closure(value).values(), *named):
        yield from _reached(further, depth - 1, seen)
