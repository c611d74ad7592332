"""A cursor over untrusted JSON: every value is checked when it is read, and every complaint says where."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from fxprune.errors import PlanError, unknown

MISSING = object()


@dataclass(frozen=True, eq=False)
class Reader:
    """One value of a document and the path that leads to it."""

    value: object
    path: str = ""

    def fail(self, constraint: str) -> PlanError:
        """The error to raise: the place, what has to hold there, and what is there."""
        got = "nothing" if self.value is MISSING else json.dumps(self.value, default=repr)
        got = got if len(got) <= 80 else f"{got[:77]}…"
        return PlanError(f"damaged plan file: {self.path or 'the document'} {constraint}, got {got}; restore the file, "
                         "or draw the plan again with fxprune.plan")

    def __getitem__(self, key: str) -> "Reader":
        return Reader(self._dict().get(key, MISSING), f"{self.path}.{key}" if self.path else key)

    def only(self, keys: tuple[str, ...]) -> None:
        """No other keys are there."""
        for key in self._dict():
            if key not in keys:
                raise PlanError(f"damaged plan file: {self.path or 'the document'}: {unknown('key', key, keys)}")

    def items(self) -> Iterator[tuple[str, "Reader"]]:
        for key, value in self._dict().items():
            yield key, Reader(value, f"{self.path}[{key!r}]")

    def elements(self) -> list["Reader"]:
        if not isinstance(self.value, list):
            raise self.fail("must be a list")
        return [Reader(value, f"{self.path}[{i}]") for i, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fail("must be a string")
        return self.value

    def integer(self, low: int = 0, high: int = 2 ** 64) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not low <= self.value <= high:
            raise self.fail(f"must be an integer >= {low}")
        return self.value

    def numbers(self) -> tuple[float, ...]:
        """A list of finite numbers (one check for all: it may hold many)."""
        if not isinstance(self.value, list) or not all(type(v) in (int, float) for v in self.value):
            raise self.fail("must be a list of finite numbers")
        try:
            numbers = tuple(map(float, self.value))
        except OverflowError:
            raise self.fail("must be a list of finite numbers") from None
        if not all(map(math.isfinite, numbers)):
            raise self.fail("must be a list of finite numbers")
        return numbers

    def shape(self) -> tuple[int, ...]:
        return tuple(element.integer() for element in self.elements())

    def _dict(self) -> dict:
        if not isinstance(self.value, dict):
            raise self.fail("must be an object")
        return self.value


def parse(text: str) -> Reader:
    """JSON without duplicate keys and without NaN or infinities.

    Raises:
        PlanError: it is not.
    """
    try:
        return Reader(json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant))
    except RecursionError:
        raise PlanError("damaged plan file: nested too deeply to be a plan") from None
    except ValueError as error:
        raise PlanError(f"damaged plan file: not valid JSON ({error}); was it cut short? Restore the file, or draw "
                        "the plan again with fxprune.plan") from None


def _unique(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is duplicated")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is not a number that a plan may hold")
    return number


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that a plan may hold")
