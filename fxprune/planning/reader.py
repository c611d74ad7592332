"""A cursor over untrusted JSON: every value is checked when it is read, and every complaint says where."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from fxprune.errors import PlanError, unknown
from fxprune.ir.strict_json import check_depth, parsed

MISSING = object()
# Of any count in a document.
MOST = 2 ** 63 - 1


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

    def integer(self, low: int = 0, high: int = MOST) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < low:
            raise self.fail(f"must be an integer >= {low}")
        if self.value > high:
            raise self.fail(f"must be at most {high}")
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

    def _dict(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            raise self.fail("must be an object")
        return self.value


def parse(text: str) -> Reader:
    """A plan file's JSON.

    Raises:
        PlanError: it is none, or holds what no plan does.
    """
    try:
        return Reader(parsed(text))
    except ValueError as error:
        raise PlanError(f"damaged plan file: not valid JSON ({error}); was it cut short? Restore the file, or draw "
                        "the plan again with fxprune.plan") from None


def given(document: object) -> Reader:
    """A document that is there already, as dictionaries and lists.

    Raises:
        PlanError: it is nested too deeply.
    """
    try:
        check_depth(document)
    except ValueError as error:
        raise PlanError(f"damaged plan: {error}") from None
    return Reader(document)
