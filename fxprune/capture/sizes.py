"""Sizes that remember where they came from.

While a model is traced, ``x.shape[0]`` is a `Size`: an ``int`` with its true value, so that all of Python works on it,
and with the expression that made it, so that the graph can recompute it at run time. A comparison makes the value
concrete; what was found true is noted as a `Guard`, which the emitted module asserts. What other code reads (``range``,
``math.sqrt``, a list's index, numpy) is a bare number from then on; which numbers follow which size is found out by
capturing at other sizes (`fxprune.capture.dynamic_sizes`).
"""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fxprune.errors import CaptureError
from fxprune.ir import trees

T = TypeVar("T")


@dataclass(frozen=True)
class Dim:
    """A leaf: the length of dimension ``dim`` of the tensor with this key."""

    tensor: int
    dim: int


@dataclass(frozen=True)
class Attribute:
    """A leaf: a number that a module holds, where a run is asked what becomes of it (`fxprune.capture.provenance`).

    Args:
        module: the module's path.
        keys: the attribute's name, then names, keys or indices inside what it holds.
        number: the value.
    """

    module: str
    keys: tuple[Any, ...]
    number: int

    def __call__(self) -> int:
        return self.number

    def __str__(self) -> str:
        first, *rest = self.keys
        inside = "".join(f".{key}" if isinstance(key, str) else f"[{key}]" for key in rest)
        return f"{self.module or 'model'}.{first}{inside}"


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
        data: whether the contents of the input decide on this length. A fact about it would hold for this input only.
        read: the expressions whose bare numbers other code was seen to read.
        closed: whether tracing is over: sizes that the model keeps somewhere are mere numbers from then on.
    """

    guards: dict[tuple[Any, Any], Guard]
    muted: int = 0
    where: Callable[[], str] = lambda: ""
    data: Callable[[Dim], bool] = lambda leaf: False
    read: dict[Any, None] = field(default_factory=dict)
    closed: bool = False

    def size(self, value: Any, expression: Any) -> Any:
        """A number that carries its expression (plain where the number is neither int nor float)."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        number = (Size if isinstance(value, int) else Fraction)(value)
        number.expression, number.book = expression, self
        return number

    def guard(self, fact: Apply, value: Any) -> None:
        """Take down a fact. One about a length that the data decide on is none, but for there being anything at all."""
        if self.muted or self.closed:
            return
        if not (fact.function in (operator.eq, operator.ne) and fact.args[1] == 0):
            self._steady(fact)
        self.guards.setdefault((fact, value), Guard(fact, value, self.where()))

    def reading(self, expression: Any) -> None:
        """Other code takes the bare number."""
        if self.muted or self.closed:
            return
        self._steady(expression)
        self.read[expression] = None

    def told(self, size: Any) -> None:
        """``len`` hands on the bare number of a size. Of the inputs' lengths, runs at others show what follows it; what
        the data decide on they do not."""
        if not (self.muted or self.closed):
            self._steady(size.expression)

    def _steady(self, expression: Any) -> None:
        if any(self.data(leaf) for leaf in leaves(expression)):
            raise CaptureError(f"the model's Python asks for a size that the contents of its inputs decide on "
                               f"({self.where()}), so that its graph depends on the data")

    def decided_by_data(self, tree: Any) -> frozenset[int]:
        """The bare numbers of the sizes in nested arguments that the data decide on."""
        sizes = [size for size in trees.leaves(tree, Size) if isinstance(self.expression_of(size), (Dim, Apply))]
        return frozenset(plain(size) for size in sizes if any(map(self.data, leaves(size.expression))))

    def close(self) -> None:
        """Let go of the run; what the model has put somewhere of its sizes would hold on to all of it."""
        self.closed, self.guards, self.read = True, {}, {}
        self.where, self.data = lambda: "", lambda leaf: False

    def expression_of(self, value: Any) -> Any:
        """The expression of a size of this book; the bare number of any other's (from a cache that outlived its run),
        any other value as it is."""
        sized = isinstance(value, (Size, Fraction))
        return value.expression if sized and value.book is self and not self.closed else plain(value)


def plain(value: Any) -> Any:
    """The bare number."""
    if isinstance(value, Size):
        return int.__index__(value)
    return float.__float__(value) if isinstance(value, Fraction) else value


def leaves(expression: Any) -> Iterator[Dim]:
    """The tensor dimensions that an expression reads."""
    return _inside(expression, Dim)


def attributes_in(expression: Any) -> Iterator[Attribute]:
    """The attributes of modules that an expression reads."""
    return _inside(expression, Attribute)


def _inside(expression: Any, kind: type[T]) -> Iterator[T]:
    if isinstance(expression, kind):
        yield expression
    elif isinstance(expression, Apply):
        for arg in expression.args:
            yield from _inside(arg, kind)


def renumbered(expression: Any, change: Callable[[int], int]) -> Any:
    """The same expression over tensors of other numbers."""
    if isinstance(expression, Dim):
        return Dim(change(expression.tensor), expression.dim)
    if isinstance(expression, Apply):
        return Apply(expression.function, tuple(renumbered(arg, change) for arg in expression.args))
    return expression


def readable(expression: Any) -> str:
    """As messages show it.

    >>> readable(Apply(operator.mod, (Dim(3, 2), 2)))
    'mod(size(2), 2)'
    """
    if isinstance(expression, Dim):
        return f"size({expression.dim})"
    if isinstance(expression, Apply):
        return f"{expression.function.__name__}({', '.join(map(readable, expression.args))})"
    return repr(expression)


def line(source: str) -> str:
    """A source line without its folders."""
    return source.rpartition("/")[2]


def _computes(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        if not all(isinstance(o, (int, float)) for o in others):
            return _concrete(self, function, others, swapped)
        args = (*others, self) if swapped else (self, *others)
        value, book = function(*map(plain, args)), _book(args)
        return value if book is None else book.size(value, Apply(function, tuple(map(book.expression_of, args))))

    return method


def _book(values: tuple[Any, ...]) -> Book | None:
    """The book that is open, of those that the sizes among the values stand in."""
    return next((v.book for v in values if isinstance(v, (Size, Fraction)) and not v.book.closed), None)


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
        book = _book((self, other))
        if book is not None:
            book.guard(Apply(function, (book.expression_of(self), book.expression_of(other))), value)
        return value

    return method


def _truth(self: Any) -> bool:
    value = bool(plain(self))
    self.book.guard(Apply(bool, (self.expression,)), value)
    return value


def _reads(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        self.book.reading(self.expression)
        return function(plain(self), *others)

    return method


_BINARY = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow")
_UNARY: dict[str, Callable[..., Any]] = {"neg": operator.neg, "pos": operator.pos, "abs": abs}
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_OTHERS: dict[str, Callable[..., Any]] = {
    "round": _computes(round), "floor": _computes(math.floor), "ceil": _computes(math.ceil),
    "bool": _truth, "int": _reads(int), "float": _reads(float), "hash": lambda self: hash(plain(self)),
    "repr": _reads(repr), "str": _reads(str), "format": _reads(format),
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
    setattr(_kind, "__trunc__", _reads(int))  # noqa: B010  (an assignment would be one to a method)
