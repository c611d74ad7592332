"""Copies of a model: of all of it, or of its Python without its weights.

``copy.deepcopy`` takes every module through pickle's protocol, with a dozen empty dictionaries of hooks each: a fifth
of the time that compressing a small net takes. Here every module is copied flat first (by ``copy.copy``, so that what
its class says on copying holds), and then what it holds. A class with a ``__deepcopy__`` of its own is left to that.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from fxprune.capture.hooks import (
    Memo,
    closed_over,
    collects,
    deepcopied,
    hooked,
    isolated,
    rebound,
    shared_names,
)
from fxprune.capture.model_walk import named_modules, named_tensors
from fxprune.errors import InputError

# What every module holds of its own.
_HOLDINGS = frozenset(vars(nn.Module()))
_ATOMS: set[type] = {int, float, bool, str, type(None), torch.dtype, torch.device}


def structural_copy(model: nn.Module) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """An isolated copy whose parameters and buffers are on the meta device.

    Returns:
        The copy, and the contents of its integer and boolean buffers by name (index tables steer data movement).

    Raises:
        InputError: the model cannot be deep-copied.
    """
    memo: Memo = {}
    contents: dict[str, torch.Tensor] = {}
    for name, tensor in named_tensors(model):
        if id(tensor) in memo:
            continue
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(meta, requires_grad=tensor.requires_grad) if parameter else meta
        if not parameter and not tensor.is_floating_point() and not tensor.is_complex() and not tensor.is_meta:
            contents[name] = tensor.detach().cpu()
    return isolated_copy(model, memo), contents


def isolated_copy(model: nn.Module, memo: Memo | None = None) -> nn.Module:
    """A deep copy to run in place of the user's model: what its hooks refer to is copied, too.

    Raises:
        InputError: the model, or what a hook refers to, cannot be deep-copied.

    >>> seen, layer = [], nn.Linear(2, 2)
    >>> handle = layer.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    >>> out = isolated_copy(layer)(torch.zeros(1, 2))
    >>> seen
    []
    """
    return _copied(model, {} if memo is None else memo, isolated)


def deep_copy(model: nn.Module, memo: Memo | None = None) -> nn.Module:
    """``copy.deepcopy``, for what the user is given: hooks that refer to modules of the model refer to the copy's.

    Args:
        model: is not changed.
        memo: ``id`` of what is replaced on the way -> what by.

    Raises:
        InputError: the model cannot be deep-copied.

    >>> layer = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> new = deep_copy(layer)
    >>> new[0].weight.equal(layer[0].weight), new[0].weight is layer[0].weight
    (True, False)
    """
    return _copied(model, {} if memo is None else memo, rebound)


def check_hooks(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Functions are shared by copies: where forward reads what a closure wrote into the original, copies do not run.

    Raises:
        InputError: a deep copy of the model raises what the model itself does not.
    """
    for words, container in shared_names(model).items():
        _check_apart(model, args, kwargs, words, container)
    hook = closed_over(model)
    if not hook:
        return
    # In the place of the user's model, which nothing may be written into: isolated copies of it.
    error = _raised(copy.deepcopy(isolated_copy(model)), args, kwargs)
    if error is not None and _raised(isolated_copy(model), args, kwargs) is None:
        raise InputError(f"a copy.deepcopy of the model must run as the model does; {hook} closes over a module of the "
                         f"original, so that the copy raised {type(error).__name__}: {error}. Let the hook be a method "
                         "of the module, or find what it needs through its first argument") from error


def _check_apart(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], words: str, container: Any) -> None:
    """A hook's copy writes into a copy of the container; what the model's methods find in their file stays empty, or
    holds what an earlier run has left there.

    Raises:
        InputError: the hook writes into it.
    """
    memo: Memo = {}
    copied = isolated_copy(model, memo)
    before = _contents(memo[id(container)])
    _raised(copied, args, kwargs)
    after = _contents(memo[id(container)])
    if len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True)):
        raise InputError(f"{words}, a name of their file, which copies of the model cannot tell apart; let the hook "
                         "write into an attribute of the model")


def _contents(container: Any) -> list[Any]:
    return [*container, *(container.values() if isinstance(container, dict) else ())]


def _raised(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception | None:
    try:
        with torch.no_grad():
            model.eval()(*deepcopied(args, {}), **deepcopied(kwargs, {}))
    except Exception as error:
        return error
    return None


def _copied(model: nn.Module, memo: Memo, hook: Callable[[Any, Memo], Any]) -> nn.Module:
    try:
        modules = _flat(model, memo)
        for module in modules:
            _fill(module, memo, hook)
        for module in modules if hook is isolated and any(map(hooked, modules)) else ():
            state = memo[id(module)].__dict__
            state.update({name: isolated(value, memo) for name, value in state.items() if collects(value, memo)})
        return memo[id(model)] if id(model) in memo else copy.deepcopy(model, memo)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the model must survive copy.deepcopy, since fxprune never works on yours; "
                         f"copying raised {type(error).__name__}: {error}") from error


def _flat(model: nn.Module, memo: Memo) -> list[nn.Module]:
    """Put a flat copy of every module into the memo, so that whatever refers to one meets it."""
    modules = {id(module): module for _, module in named_modules(model)
               if id(module) not in memo and not _special(type(module))}  # type: ignore[arg-type]
    memo |= {number: copy.copy(module) for number, module in modules.items()}
    return list(modules.values())


@cache
def _special(kind: type) -> bool:
    """Whether a flat copy would not do: it would share what lies in slots."""
    return hasattr(kind, "__deepcopy__") or any(getattr(base, "__slots__", ()) for base in kind.__mro__)


def _fill(module: nn.Module, memo: Memo, hook: Callable[[Any, Memo], Any]) -> None:
    """Copy what the flat copy of a module still shares with it."""
    state: dict[str, Any] = memo[id(module)].__dict__
    for name, value in state.items():
        kind: Any = type(value)
        if kind in _ATOMS or kind is tuple and all(type(item) in _ATOMS for item in value):
            continue
        if name in _HOLDINGS and kind in (dict, OrderedDict, set) and not value:  # as most are
            state[name] = memo.setdefault(id(value), kind())
            continue
        if kind not in (dict, OrderedDict) or name not in _HOLDINGS:
            state[name] = deepcopied(value, memo)
            continue
        new = state[name] = memo.setdefault(id(value), kind())
        for key, item in value.items():
            if type(item) not in _ATOMS:
                plain = isinstance(item, (torch.Tensor, nn.Module))
                item = deepcopied(item, memo) if plain else hook(item, memo)
            new[key] = item
