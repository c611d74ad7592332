"""What the example gives for each argument of ``forward``: Python's own binding, asked in one place."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from fxprune.errors import InputError
from fxprune.ir.example_inputs import Example

EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Argument:
    """One argument of ``forward``.

    Args:
        name: as ``forward`` calls it.
        kind: how it may be passed, one of the kinds below, which are those of ``inspect.Parameter``.
        default: of the original; ``EMPTY`` where it has none.
        value: what the example gives: a tuple for ``*args``, a dictionary for ``**kwargs``; ``EMPTY`` where it leaves
            the argument out.
    """

    POSITIONAL_ONLY: ClassVar = inspect.Parameter.POSITIONAL_ONLY
    KEYWORD_ONLY: ClassVar = inspect.Parameter.KEYWORD_ONLY
    VAR_POSITIONAL: ClassVar = inspect.Parameter.VAR_POSITIONAL
    VAR_KEYWORD: ClassVar = inspect.Parameter.VAR_KEYWORD

    name: str
    kind: Any
    default: Any = EMPTY
    value: Any = EMPTY

    @property
    def given(self) -> bool:
        return self.value is not EMPTY

    @property
    def effective(self) -> Any:
        """What ``forward`` sees: what is given, else the default."""
        if self.given:
            return self.value
        return {self.VAR_POSITIONAL: (), self.VAR_KEYWORD: {}}.get(self.kind, self.default)


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


def labelled(model: nn.Module, example: Example) -> Iterator[tuple[str, Any]]:
    """What the example holds besides containers, as users call it (``batch['image']``), in the order of its arguments.

    >>> list(labelled(nn.Bilinear(2, 2, 2), ((), {"input2": {"a": [1, 2]}, "input1": 3})))
    [("input2['a'][0]", 1), ("input2['a'][1]", 2), ('input1', 3)]
    """
    names = {id(value): name for name, value in named(arguments(model, example))}
    for value in (*example[0], *example[1].values()):
        yield from _leaves(names[id(value)], value)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{name}[{key!r}]", item)
    elif isinstance(value, (list, tuple)):
        for key, item in enumerate(value):
            yield from _leaves(f"{name}[{key!r}]", item)
    else:
        yield name, value


def named(bound: tuple[Argument, ...]) -> Iterator[tuple[str, Any]]:
    """What the example gives, as users call it: ``x``, an item of ``*args`` as ``args[0]``, of ``**kwargs`` by its key.

    >>> list(named(arguments(nn.Bilinear(2, 2, 2), ((), {"input2": 2, "input1": 1}))))
    [('input1', 1), ('input2', 2)]
    """
    for argument in bound:
        if not argument.given:
            continue
        if argument.kind is Argument.VAR_POSITIONAL:
            yield from ((f"{argument.name}[{place}]", value) for place, value in enumerate(argument.value))
        elif argument.kind is Argument.VAR_KEYWORD:
            yield from argument.value.items()
        else:
            yield argument.name, argument.value
