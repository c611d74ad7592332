"""What the example gives for each argument of ``forward``: Python's own binding, asked in one place."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example

EMPTY = inspect.Parameter.empty
VAR_POSITIONAL, VAR_KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


@dataclass(frozen=True)
class Argument:
    """One argument of ``forward``.

    Args:
        name: as ``forward`` calls it.
        kind: how it may be passed, one of the kinds of ``inspect.Parameter``.
        default: of the original; ``EMPTY`` where it has none.
        value: what the example gives: a tuple for ``*args``, a dictionary for ``**kwargs``; ``EMPTY`` where it leaves
            the argument out.
    """

    name: str
    kind: Any
    default: Any = EMPTY
    value: Any = EMPTY

    @property
    def items(self) -> Mapping[Any, Any]:
        """What the example gives, as a graph takes it: each item of ``*args`` and ``**kwargs`` by itself, with its key
        there; any other argument whole, with the key None."""
        if self.value is EMPTY:
            return {}
        if self.kind is VAR_POSITIONAL:
            return dict(enumerate(self.value))
        return self.value if self.kind is VAR_KEYWORD else {None: self.value}


def arguments(model: nn.Module, example: Example) -> tuple[Argument, ...]:
    """The arguments of ``model.forward`` in their order, with what the example gives.

    Raises:
        InputError: the example does not fit the signature.

    >>> [argument.name for argument in arguments(nn.Bilinear(2, 2, 2), ((1,), {"input2": 2}))]
    ['input1', 'input2']
    """
    signature = inspect.signature(model.forward)
    try:
        given = signature.bind(*example[0], **example[1]).arguments
    except TypeError as error:
        raise InputError(f"example inputs must fit forward{signature}: {error}; pass a tuple of positional arguments "
                         "or a dict of keyword arguments") from error
    return tuple(Argument(name, p.kind, p.default, given.get(name, EMPTY)) for name, p in signature.parameters.items())


def placeholders(bound: tuple[Argument, ...]) -> dict[str, tuple[Argument, Any]]:
    """A name for everything that the example gives -> its argument, and its key in ``*args`` or ``**kwargs``."""
    taken = {argument.name for argument in bound}
    found: dict[str, tuple[Argument, Any]] = {}
    for argument in bound:
        for key in argument.items:
            name = argument.name if key is None else key if isinstance(key, str) else f"{argument.name}_{key}"
            while key is not None and name in taken:
                name += "_"
            taken.add(name)
            found[name] = argument, key
    return found


def named(model: nn.Module, example: Example) -> dict[str, Any]:
    """What the example gives, by those names.

    Raises:
        InputError: the example does not fit the signature.

    >>> named(nn.Bilinear(2, 2, 2), ((), {"input2": 2, "input1": 1}))
    {'input1': 1, 'input2': 2}
    """
    found = placeholders(arguments(model, example))
    return {name: argument.items[key] for name, (argument, key) in found.items()}
