"""The constructor call that a leaf module of ``torch.nn`` would be made with, from what it remembers.

Modules keep their constructor's arguments as attributes of the same names; a call is only handed on if a module made
by it, on the meta device, remembers the same and has the same parameters and buffers.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from fxprune.artefacts.source_values import literal
from fxprune.capture.holdings import own_buffers, own_modules, own_parameters, transient_buffers
from fxprune.capture.hooks import hooked
from fxprune.errors import UnsupportedError

# Arguments that may be one number for all dimensions.
_PER_DIMENSION = {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size"}
_SKIPPED = {"device", "dtype"}
# What attention projects with: a linear layer that only quantisation treats otherwise.
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {nn.modules.linear.NonDynamicallyQuantizableLinear: nn.Linear}


def constructor(module: nn.Module) -> str:
    """The call that makes a module like this one.

    Raises:
        UnsupportedError: no call of its class does.

    >>> constructor(nn.Conv2d(3, 8, (3, 3), padding=(1, 1), bias=False)), constructor(nn.ReLU(inplace=True))
    ('nn.Conv2d(3, 8, 3, padding=1, bias=False)', 'nn.ReLU(inplace=True)')
    >>> constructor(nn.LSTM(4, 6, 2, batch_first=True)), constructor(nn.BatchNorm1d(4, dtype=torch.float16))
    ('nn.LSTM(4, 6, num_layers=2, batch_first=True)', 'nn.BatchNorm1d(4, dtype=torch.float16)')
    """
    kind = _PLAIN.get(type(module), type(module))
    if getattr(nn, kind.__name__, None) is not kind:
        raise UnsupportedError(f"standalone source cannot construct a {kind.__module__}.{kind.__qualname__}")
    if "forward" in vars(module) or hooked(module):
        raise UnsupportedError(f"standalone source cannot hold the hooks of a {kind.__name__}")
    parameters = list(_parameters(kind))
    full = dict(_arguments(module, parameters))
    short = {name: _collapsed(name, value) for name, value in full.items()}
    for values in (_without_defaults(short, parameters), _without_defaults(full, parameters), full):
        if _makes(kind, module, values):
            return f"nn.{kind.__name__}({', '.join(_spelled(values, parameters))})"
    raise UnsupportedError(f"standalone source cannot construct this {kind.__name__}: it was changed after it was made")


def _parameters(kind: type[nn.Module]) -> Iterator[inspect.Parameter]:
    """The arguments of the nearest constructor that names them."""
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        found = [p for p in list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
                 if p.kind is p.POSITIONAL_OR_KEYWORD or p.kind is p.KEYWORD_ONLY]
        if not found and base is not nn.Module and issubclass(base, nn.RNNBase):
            continue
        if base is nn.RNNBase:
            # What its subclasses say by their name, and what one of them takes besides.
            found = [p for p in found if p.name != "mode"]
            if kind is nn.RNN:
                found.append(inspect.Parameter("nonlinearity", inspect.Parameter.KEYWORD_ONLY, default="tanh"))
        yield from found
        return


def _arguments(module: nn.Module, parameters: list[inspect.Parameter]) -> Iterator[tuple[str, Any]]:
    names = [p.name for p in parameters]
    for parameter in parameters:
        name = parameter.name
        if name in _SKIPPED or name.startswith("_"):
            continue
        if name in own_parameters(module):
            yield name, own_parameters(module)[name] is not None
        elif hasattr(module, name):
            yield name, getattr(module, name)
        elif parameter.default is parameter.empty:
            raise UnsupportedError(f"standalone source cannot construct a {type(module).__name__}: it does not "
                                   f"remember its {name!r}")
    dtypes = {t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()}
    if "dtype" in names and dtypes - {torch.float32}:
        yield "dtype", min(dtypes, key=str)


def _collapsed(name: str, value: Any) -> Any:
    """``(3, 3)`` as 3."""
    if name in _PER_DIMENSION and isinstance(value, tuple) and value and len(set(value)) == 1:
        return value[0]
    return value


def _without_defaults(values: dict[str, Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    defaults = {p.name: p.default for p in parameters}
    return {name: value for name, value in values.items()
            if type(value) is not type(defaults[name]) or value != defaults[name]}


def _spelled(values: dict[str, Any], parameters: list[inspect.Parameter]) -> Iterator[str]:
    """Positional where the constructor demands the argument, else by name."""
    needed = {p.name for p in parameters if p.default is p.empty}
    for name, value in values.items():
        yield literal(value) if name in needed else f"{name}={literal(value)}"


def _makes(kind: type[nn.Module], module: nn.Module, values: dict[str, Any]) -> bool:
    try:
        with torch.device("meta"):
            made = kind(**values)
    except Exception:
        return False
    return _alike(made, module)


def _alike(made: nn.Module, module: nn.Module) -> bool:
    if type(made) is not _PLAIN.get(type(module), type(module)) or list(own_modules(made)) != list(own_modules(module)):
        return False
    if transient_buffers(made) != transient_buffers(module):
        return False
    if _tensors(made) != _tensors(module):
        return False
    own = set(vars(nn.Module()))
    if any(not _same(value, vars(module).get(name)) for name, value in vars(made).items() if name not in own):
        return False
    return all(_same_child(own_modules(made)[name], child) for name, child in own_modules(module).items())


def _same_child(made: nn.Module | None, child: nn.Module | None) -> bool:
    return made is child if made is None or child is None else _alike(made, child)


def _tensors(module: nn.Module) -> list[Any]:
    own = (*own_parameters(module).items(), *own_buffers(module).items())
    return [(name, None if t is None else (t.shape, t.dtype)) for name, t in own]


def _same(a: Any, b: Any) -> bool:
    """Equal; of lists of tensors and references to them (recurrent layers keep some) only the length."""
    if isinstance(a, list) and a and not isinstance(a[0], (int, float, str, list)):
        return isinstance(b, list) and len(a) == len(b)
    return a == b
