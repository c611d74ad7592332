"""Sizes that remember where they came from.

While a model is traced, ``x.shape[0]`` is a `Size`: an ``int`` with its true value, so that all of Python works on it,
and with the expression that made it, so that the graph can recompute it at run time. A comparison makes the value
concrete; what was found true is noted as a `Guard`, which the emitted module asserts.
"""

import builtins
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from fxprune.errors import CaptureError


@dataclass(frozen=True)
class Dim:
    """A leaf: the length of dimension ``dim`` of the tensor with this key."""

    tensor: int
    dim: int


@dataclass(frozen=True)
class Apply:
    """A function of other expressions and plain numbers."""

    function: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Guard:
    """A fact about sizes that held while the graph was made."""

    fact: Apply
    value: Any
    source: str


class Size(int):
    """An int that is the value of an expression over tensor sizes."""

    expression: Any
    book: "Book"


class Fraction(float):
    """A float that is the value of an expression over tensor sizes."""

    expression: Any
    book: "Book"


@dataclass
class Book:
    """Makes sizes and takes down guards.

    Args:
        muted: above zero while an operator's own Python runs.
        where: the source line that runs just now.
        data: whether the contents of the input decide on the shape of the tensor with this key. A fact about such a
            size would hold for this input only.
    """

    guards: dict[tuple[Any, Any], Guard]
    muted: int = 0
    where: Callable[[], str] = lambda: ""
    data: Callable[[int], bool] = lambda tensor: False

    def size(self, value: Any, expression: Any) -> Any:
        """A number that carries its expression (plain where the number is neither int nor float)."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        number = (Size if isinstance(value, int) else Fraction)(value)
        number.expression, number.book = expression, self
        return number

    def guard(self, fact: Apply, value: Any) -> None:
        if self.muted:
            return
        if any(self.data(leaf.tensor) for leaf in leaves(fact)):
            raise CaptureError(f"the model's Python asks for a size that the contents of its inputs decide on "
                               f"({self.where()}), so that its graph depends on the data")
        self.guards.setdefault((fact, value), Guard(fact, value, self.where()))


def expression_of(value: Any) -> Any:
    """The expression of a size, any other value as it is."""
    return value.expression if isinstance(value, (Size, Fraction)) else value


def plain(value: Any) -> Any:
    """The bare number."""
    if isinstance(value, Size):
        return int.__index__(value)
    return float.__float__(value) if isinstance(value, Fraction) else value


def leaves(expression: Any) -> Iterator[Dim]:
    """The tensor dimensions that an expression reads."""
    if isinstance(expression, Dim):
        yield expression
    elif isinstance(expression, Apply):
        for arg in expression.args:
            yield from leaves(arg)


def _computes(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        if not all(isinstance(o, (int, float)) for o in others):
            return _concrete(self, function, others, swapped)
        args = (*others, self) if swapped else (self, *others)
        value = function(*map(plain, args))
        return self.book.size(value, Apply(function, tuple(map(expression_of, args))))

    return method


def _concrete(self: Any, function: Callable[..., Any], others: Any, swapped: bool) -> Any:
    """A size that meets something else than a number: a list is repeated as often as it says."""
    if function is not operator.mul or not isinstance(others[0], (list, tuple, str)):
        return NotImplemented
    self.book.guard(Apply(operator.eq, (self.expression, plain(self))), True)
    return others[0] * plain(self)


def _compares(function: Callable[..., bool]) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return function is operator.ne if function in (operator.eq, operator.ne) else NotImplemented
        value = function(plain(self), plain(other))
        self.book.guard(Apply(function, (self.expression, expression_of(other))), value)
        return value

    return method


def _concretizes(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any) -> Any:
        value = function(plain(self))
        self.book.guard(Apply(function, (self.expression,)), value)
        return value

    return method


_BINARY = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
_UNARY: dict[str, Callable[..., Any]] = {"neg": operator.neg, "pos": operator.pos, "abs": abs}
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_OTHERS: dict[str, Callable[..., Any]] = {
    "round": _computes(round), "floor": _computes(math.floor), "ceil": _computes(math.ceil),
    "bool": _concretizes(bool), "int": _concretizes(int), "hash": lambda self: hash(plain(self)),
    "divmod": lambda self, other: (self // other, self % other), "deepcopy": lambda self, memo: self,
    "reduce": lambda self: (type(plain(self)), (plain(self),)),
}

for _kind in (Size, Fraction):
    for _name in _BINARY:
        setattr(_kind, f"__{_name}__", _computes(getattr(operator, _name)))
        setattr(_kind, f"__r{_name}__", _computes(getattr(operator, _name), swapped=True))
    for _name, _function in _UNARY.items():
        setattr(_kind, f"__{_name}__", _computes(_function))
    for _name in _COMPARISONS:
        setattr(_kind, f"__{_name}__", _compares(getattr(operator, _name)))
    for _name, _method in _OTHERS.items():
        setattr(_kind, f"__{_name}__", _method)
setattr(Fraction, "__trunc__", _concretizes(int))  # noqa: B010  (an assignment would be one to a method)

_MATH = ("sqrt", "ceil", "floor", "log", "log2", "log10", "exp", "pow", "prod", "trunc", "gcd")


@contextmanager
def watched(book: Book) -> Iterator[None]:
    """Let ``len``, ``range`` and the functions of ``math`` see sizes, which C code would read unseen."""
    real_range, real_len = range, len

    class Ranges(type):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, real_range)

        def __getattr__(cls, name: str) -> Any:
            # Modules that torch imports while the model runs read ``range.__getitem__``.
            return getattr(real_range, name)

    class Range(metaclass=Ranges):
        def __new__(cls, *bounds: Any) -> Any:
            for bound in bounds:
                if isinstance(bound, Size):
                    book.guard(Apply(operator.eq, (bound.expression, plain(bound))), True)
            return real_range(*map(plain, bounds))

    def length(value: Any) -> int:
        return value.shape[0] if isinstance(value, torch.Tensor) and value.dim() and not book.muted else real_len(value)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(builtins, "range", Range))
        stack.enter_context(mock.patch.object(builtins, "len", length))
        for name in _MATH:
            stack.enter_context(mock.patch.object(math, name, _math(book, getattr(math, name))))
        yield


def _math(book: Book, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        items = tuple(args[0]) if function is math.prod else args
        if not any(isinstance(item, (Size, Fraction)) for item in items):
            return function(*args)
        if function is math.prod:
            product: Any = 1
            for item in items:
                product = product * item
            return product
        return book.size(function(*map(plain, args)), Apply(function, tuple(map(expression_of, args))))

    return call
