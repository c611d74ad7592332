"""Methods of a value whose work belongs to a later pass.

A coupling prints itself, and a plan slices an optimizer's state. The code that does it knows the value, so that the
value cannot import the code: the later pass provides it, and the method looks it up.
"""

from collections.abc import Callable
from typing import Any, TypeVar

_PROVIDED: dict[tuple[type, str], Callable[..., Any]] = {}
F = TypeVar("F", bound=Callable[..., Any])


def provides(kind: type, method: str) -> Callable[[F], F]:
    """A decorator: the function is what ``kind.method`` calls, with the value (a class method: without) first.

    >>> class Value:
    ...     def shown(self):
    ...         return provided(Value, "shown")(self)
    >>> @provides(Value, "shown")
    ... def show(value):
    ...     return "a value"
    >>> Value().shown()
    'a value'
    """

    def provide(function: F) -> F:
        if (kind, method) in _PROVIDED:
            raise ValueError(f"{kind.__name__}.{method} is provided already, by {_PROVIDED[kind, method].__module__}")
        _PROVIDED[kind, method] = function
        return function

    return provide


def provided(kind: type, method: str) -> Callable[..., Any]:
    """What a later pass provides for ``kind.method``."""
    return _PROVIDED[kind, method]
