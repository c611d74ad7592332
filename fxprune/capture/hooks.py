"""Hooks of a model on a copy of it.

``copy.deepcopy`` shares functions, and with them all that a closure refers to: a hook of the copy would write into the
user's model and lists. Two kinds of copy are made here. A *rebound* hook is for what the user is given: as ``deepcopy``
has it, but that modules of the model are those of the copy. An *isolated* one is for runs that the user did not ask
for: all that it refers to is copied, the containers and modules among the names of its file, too.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from fxprune.capture.call_forms import is_leaf
from fxprune.capture.model_walk import named_modules
from fxprune.errors import InputError
from fxprune.ir.trees import tensors_in

Memo = dict[int, Any]
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def hooked(module: nn.Module) -> bool:
    """Whether calling the module runs hooks of its own.

    >>> layer = nn.ReLU()
    >>> handle = layer.register_forward_pre_hook(print)
    >>> hooked(layer), hooked(nn.ReLU())
    (True, False)
    """
    return any(getattr(module, name, None) for name in _HOOKS)


def any_hooked(model: nn.Module) -> bool:
    """Whether any of its modules is."""
    return any(hooked(module) for _, module in named_modules(model))


def closed_over(model: nn.Module) -> str:
    """The first hook whose closure refers to a module of the model, in words; ``""`` where there is none.

    >>> def sees(net):
    ...     return lambda module, args, output: net
    >>> net = nn.Sequential(nn.ReLU())
    >>> handle = net[0].register_forward_hook(sees(net))
    >>> closed_over(net), closed_over(nn.ReLU())
    ("the hook '<lambda>' of module '0'", '')
    """
    modules = [(name, module) for name, module in named_modules(model) if hooked(module)]
    memo = {id(module): module for _, module in named_modules(model)} if modules else {}
    for name, module in modules:
        for hook in (hook for kind in _HOOKS for hook in getattr(module, kind).values()):
            if not isinstance(hook, MethodType) and _reaches(hook, memo, set()):
                return f"the hook {_name(hook)!r} of " + (f"module {name!r}" if name else "the model")
    return ""


def shared_names(model: nn.Module) -> dict[str, Any]:
    """Containers that a hook and the model's own methods find under a name of their file, by words for both."""
    hooks = [(words, function) for words, hook in _worded(model) for function in [getattr(hook, "__func__", hook)]
             if isinstance(function, FunctionType)]
    if not hooks:
        return {}
    methods = [value for kind in {type(module): None for _, module in named_modules(model)} for base in kind.__mro__
               if base.__module__.partition(".")[0] != "torch" for value in vars(base).values()
               if isinstance(value, FunctionType)]
    read = {id(value) for method in methods for value in _globals(method).values()}
    return {f"the hook {words} and the model's own methods share {name!r}": value for words, function in hooks
            for name, value in _globals(function).items()
            if isinstance(value, (list, dict, set)) and id(value) in read and function not in methods}


def collects(value: Any, memo: Memo) -> bool:
    """Whether a function closes over a container that a hook's copy writes into, too."""
    return isinstance(value, (FunctionType, MethodType, partial)) and _reaches(value, memo, set(), (list, dict, set))


def left_behind(model: nn.Module) -> list[str]:
    """The hooks of modules that a graph has no node for, in words: what they compute is in the graph, what else they do
    is not. Torch's own do nothing else.

    >>> net = nn.Sequential(nn.Sequential(nn.ReLU()))
    >>> handles = [net[0].register_forward_hook(print), net[0][0].register_forward_hook(print)]
    >>> left_behind(net)
    ["'print' of module '0'"]
    """
    return [words for words, hook in _worded(model, lambda module: not is_leaf(module))
            if (getattr(hook, "__module__", "") or "").partition(".")[0] != "torch"]


def _worded(model: nn.Module, wanted: Callable[[nn.Module], bool] = hooked) -> Iterator[tuple[str, Any]]:
    """All hooks, and what to call them."""
    for name, module in named_modules(model):
        if wanted(module):
            for hook in (hook for kind in _HOOKS for hook in getattr(module, kind).values()):
                yield f"{_name(hook)!r} of {f'module {name!r}' if name else 'the model'}", hook


def rebound(hook: Any, memo: Memo) -> Any:
    """As ``copy.deepcopy`` copies it; modules in closures become those of the memo.

    >>> def sees(net):
    ...     return lambda module, args, output: net
    >>> old, new = nn.ReLU(), nn.ReLU()
    >>> hook = sees(old)
    >>> rebound(hook, {id(old): new})(None, None, None) is new, rebound(hook, {}) is hook
    (True, True)
    """
    if isinstance(hook, MethodType):
        return MethodType(hook.__func__, rebound(hook.__self__, memo))
    if isinstance(hook, FunctionType):
        return _function(hook, memo, _shared, {}) if _reaches(hook, memo, set()) else hook
    return deepcopied(hook, memo)


def isolated(hook: Any, memo: Memo) -> Any:
    """A copy that writes into nothing of the user's.

    Raises:
        InputError: it refers to what cannot be copied.

    >>> seen = []
    >>> def hook(module, args, output):
    ...     seen.append(output)
    >>> isolated(hook, {})(None, None, 1), seen
    (None, [])
    """
    try:
        return _copied(hook, memo)
    except Exception as error:
        raise InputError(f"the hook {_name(hook)!r} refers to what cannot be copied, and fxprune runs hooks on copies "
                         f"only ({type(error).__name__}: {error}); remove it while you compress, and register it on "
                         "the result") from error


def _name(hook: Any) -> str:
    return getattr(hook, "__name__", type(hook).__name__)


def deepcopied(value: Any, memo: Memo) -> Any:
    """``copy.deepcopy``; of a tensor that still hangs on its graph, which cannot be deep-copied, the value."""
    if id(value) in memo:
        return memo[id(value)]
    for tensor in tensors_in(value):
        if not tensor.is_leaf:
            memo.setdefault(id(tensor), tensor.detach().clone())
    return copy.deepcopy(value, memo)


def _copied(value: Any, memo: Memo) -> Any:
    if isinstance(value, MethodType):
        return MethodType(_copied(value.__func__, memo), _copied(value.__self__, memo))
    if isinstance(value, partial):
        return partial(_copied(value.func, memo), *(_copied(arg, memo) for arg in value.args),
                       **{key: _copied(arg, memo) for key, arg in value.keywords.items()})
    if isinstance(value, FunctionType):
        return _function(value, memo, _copied, _globals(value))
    if isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, (list, dict, set)):
        return getattr(_copied(value.__self__, memo), value.__name__)
    return value if isinstance(value, ModuleType) else deepcopied(value, memo)


def _shared(value: Any, memo: Memo) -> Any:
    """The user's own, but for what leads to a module that has a copy."""
    return rebound(value, memo) if _reaches(value, memo, set()) else value


def _reaches(value: Any, memo: Memo, seen: set[int], kinds: Any = nn.Module) -> bool:
    """Whether it is, or closes over, a module (or what else is asked for) that has a copy."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, kinds):
        return id(value) in memo
    held: list[Any] = []
    if isinstance(value, MethodType):
        held = [value.__func__, value.__self__]
    elif isinstance(value, partial):
        held = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, FunctionType):
        held = [*closure(value).values(), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return any(_reaches(item, memo, seen, kinds) for item in held)


def _function(function: FunctionType, memo: Memo, change: Callable[[Any, Memo], Any], names: dict[str, Any]
              ) -> FunctionType:
    """The same code over changed cells, defaults and ``names`` of its file."""
    if id(function) in memo:
        return memo[id(function)]
    scope = {**function.__globals__} if names else function.__globals__
    cells = tuple(CellType() for _ in function.__closure__ or ())
    new = memo[id(function)] = FunctionType(function.__code__, scope, function.__name__, None, cells)
    vars(new).update(vars(function))
    new.__qualname__, new.__doc__ = function.__qualname__, function.__doc__
    if function.__defaults__:
        new.__defaults__ = tuple(change(value, memo) for value in function.__defaults__)
    if function.__kwdefaults__:
        new.__kwdefaults__ = {name: change(value, memo) for name, value in function.__kwdefaults__.items()}
    for index, content in closure(function).items():
        cells[index].cell_contents = change(content, memo)
    scope.update({name: change(value, memo) for name, value in names.items()})
    return new


def closure(function: FunctionType) -> dict[int, Any]:
    """What a function closes over, by position; a cell may still be empty."""
    contents = {}
    for index, cell in enumerate(function.__closure__ or ()):
        try:
            contents[index] = cell.cell_contents
        except ValueError:
            continue
    return contents


def _globals(function: FunctionType) -> dict[str, Any]:
    """What a function may write into by the names of its file: containers, modules, and its neighbours' functions."""
    scope = function.__globals__
    found = {name: scope[name] for name in _names(function.__code__) if name in scope}
    return {name: value for name, value in found.items() if isinstance(value, (list, dict, set, nn.Module)) or
            isinstance(value, FunctionType) and value.__globals__ is scope}


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
