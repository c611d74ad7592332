"""Random numbers that Python draws: they leave no trace in a graph, and the user's generators stay as they were."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from fxprune.capture.hooks import closure
from fxprune.capture.model_walk import named_modules
from fxprune.errors import CaptureError

T = TypeVar("T")

_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)
# What holds none, or is looked through for itself.
_CLOSED = (int, float, str, bytes, type, type(None), ModuleType, torch.Tensor, nn.Module, np.ndarray)
_HOLDINGS = frozenset(vars(nn.Module()))
# How far into the objects that a module holds generators are looked for.
DEPTH = 4


@contextmanager
def untouched_rng() -> Iterator[None]:
    """Leave every generator as it was found; one that nobody has drawn from is not touched at all, so that what other
    threads draw meanwhile is drawn once."""
    before, cpu = _states(), torch.get_rng_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices, enabled=bool(devices)):
        try:
            yield
        finally:
            for name, state in _states().items():
                if state != before[name]:
                    _RESTORE[name](before[name])
            if not torch.equal(cpu, torch.get_rng_state()):
                torch.set_rng_state(cpu)


def undrawn(model: nn.Module, run: Callable[[], tuple[T, nn.Module]]) -> tuple[T, nn.Module]:
    """What ``run`` gives, with the copy of ``model`` that it ran, where it draws nothing with Python's or numpy's
    generators, nor with one of the model's own.

    Raises:
        CaptureError: it does, twice: once may have been another thread.
    """
    for _ in range(2):
        held = owned(model)
        before = {**_states(), **{name: _state(generator) for name, generator in held.items()}}
        out, root = run()
        after = {**_states(), **{name: _state(generator) for name, generator in (owned(root) if held else {}).items()}}
        for name, generator in held.items():  # a copy may share it
            if _state(generator) != before[name]:
                _restore(generator, before[name])
        drawn = [name for name, state in after.items() if name in before and state != before[name]]
        if not drawn:
            return out, root
    raise CaptureError(f"the model draws numbers with {' and '.join(drawn)}, and a graph would use those of one draw "
                       "for good; draw them with torch, which stays random in a graph")


def owned(model: nn.Module) -> dict[str, Any]:
    """The generators that a model's modules, their classes or the files of these hold, by words for the place.

    >>> class Net(nn.Module):
    ...     rng = random.Random(0)
    >>> list(owned(Net()))
    ["its own generator ('rng' of fxprune.capture.randomness)"]
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for path, module in named_modules(model):
        kind: type = type(module)
        if kind.__module__.startswith("torch.nn."):
            continue
        where = f"module {path!r}" if path else "the model"
        places = [(name, value, where) for name, value in vars(module).items() if name not in _HOLDINGS]
        places += [(name, scope.get(name), kind.__module__) for name, scope in scopes(kind)]
        for name, value, at in places:
            for number, generator in enumerate(_inside(value, DEPTH, seen)):
                found[f"its own generator ({name!r} of {at}{f', no. {number + 1}' if number else ''})"] = generator
    return found


@cache
def scopes(kind: type) -> list[tuple[str, Mapping[str, Any]]]:
    """What a module's class, and its methods by the names of their file, may find a generator under."""
    found: dict[tuple[str, int], tuple[str, Mapping[str, Any]]] = {}
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("torch", "builtins"):
            continue
        named: list[tuple[str, Mapping[str, Any]]] = [(name, vars(base)) for name in vars(base)
                                                      if not name.startswith("__")]
        functions = [value for value in vars(base).values() if isinstance(value, FunctionType)]
        named += [(name, f.__globals__) for f in functions for name in f.__code__.co_names if name in f.__globals__]
        found |= {(name, id(scope)): (name, scope) for name, scope in named}
    return list(found.values())


def _inside(value: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    """The generators that a value is, holds or closes over."""
    if isinstance(value, _GENERATORS):
        yield value
    elif depth and id(value) not in seen and not isinstance(value, _CLOSED):
        seen.add(id(value))
        for item in _held(value):
            yield from _inside(item, depth - 1, seen)


def _held(value: Any) -> list[Any]:
    """What to look through next."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        return [*closure(value).values(), *(value.__defaults__ or ())]
    return list(getattr(value, "__dict__", {}).values())


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    state = generator.get_state(legacy=False) if isinstance(generator, np.random.RandomState) else \
        generator.bit_generator.state
    return _plain(state)


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def _plain(state: Any) -> Any:
    """Arrays as lists, which can be compared."""
    if isinstance(state, dict):
        return {key: _plain(item) for key, item in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def _states() -> dict[str, Any]:
    return {"Python's random": random.getstate(), "numpy.random": _plain(np.random.get_state(legacy=False))}


_RESTORE: dict[str, Callable[[Any], None]] = {"Python's random": random.setstate, "numpy.random": np.random.set_state}
