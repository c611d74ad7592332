"""Which values the attributes of modules must have, so that every number that reaches a call is what the plan wants.

Each number is an expression of attributes and of sizes, and a size is known under the plan; so each is an equation. An
attribute that stands alone in one is known; where one attribute of an expression is not known yet, it is found by
trying all smaller and some larger ones. What the model's Python asked of attributes must be answered as before.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fxprune.capture.laws import value
from fxprune.capture.sizes import Apply, Attribute, attributes_in

# Numbers beyond this are no widths, and are not tried one by one.
LARGEST = 1 << 17


@dataclass(frozen=True)
class Equation:
    """A number of a call.

    Args:
        expression: what the number is computed from; sizes are put in.
        wanted: what it must be.
    """

    expression: Any
    wanted: Any

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        return tuple(dict.fromkeys(attributes_in(self.expression)))

    def holds(self, values: "Values", attribute: Attribute | None = None, number: int = 0) -> bool:
        known = {**values.known, attribute: number} if attribute is not None else values.known
        try:
            got = value(self.expression, known)
        except (ArithmeticError, ValueError, TypeError):
            return False
        return bool(got == self.wanted)


@dataclass
class Values:
    """What was found: ``known`` of those attributes that some call wants a value of."""

    known: dict[Attribute, int] = field(default_factory=dict)
    domains: dict[Attribute, set[int]] = field(default_factory=dict)

    def unknown(self, equation: Equation) -> list[Attribute]:
        return [attribute for attribute in equation.attributes if attribute not in self.known]


def solved(equations: Sequence[Equation], facts: Sequence[Equation] = ()) -> dict[Attribute, int]:
    """The values of the attributes that any equation decides on; equations that contradict each other stay unsatisfied.

    Args:
        equations: of the numbers in calls.
        facts: what the model's Python asked, and the answer; they decide on attributes that no number does.

    >>> heads, size = Attribute("a", ("heads",), 12), Attribute("a", ("size",), 64)
    >>> import operator
    >>> found = solved([Equation(Apply(operator.mul, (heads, size)), 384), Equation(size, 64)])
    >>> {str(attribute): number for attribute, number in found.items()}
    {'a.size': 64, 'a.heads': 6}
    """
    values = Values()
    for equation in equations:
        if isinstance(equation.expression, Attribute):
            values.known.setdefault(equation.expression, equation.wanted)
    waiting = [equation for equation in equations if equation.attributes]
    while _narrowed(values, waiting) or _chosen(values, waiting):
        pass
    while _narrowed(values, facts):
        pass
    for attribute in [a for a in values.domains if a not in values.known]:
        values.known[attribute] = _likeliest(attribute, values.domains[attribute])
    return values.known


def _narrowed(values: Values, equations: Iterable[Equation]) -> bool:
    """Find the attributes that alone are unknown in some equation; whether there were any."""
    before = len(values.known)
    for equation in equations:
        unknown = values.unknown(equation)
        if len(unknown) != 1:
            continue
        found = set(_solutions(values, equation, unknown[0]))
        domain = values.domains.get(unknown[0], found) & found
        if domain:
            values.domains[unknown[0]] = domain
        if len(domain) == 1:
            values.known[unknown[0]] = domain.pop()
    return len(values.known) > before


def _chosen(values: Values, equations: Iterable[Equation]) -> bool:
    """Where several values would do, or several attributes could change, one is taken: whatever satisfies every call is
    right. What need not change does not."""
    for attribute, domain in values.domains.items():
        if attribute not in values.known:
            values.known[attribute] = _likeliest(attribute, domain)
            return True
    for equation in equations:
        unknown = values.unknown(equation)
        if len(unknown) < 2:
            continue
        rest = dict(values.known) | {attribute: attribute.number for attribute in unknown}
        as_they_are = Values(rest)
        for attribute in unknown:
            found = _likeliest(attribute, set(_solutions(as_they_are, equation, attribute)) or {0})
            if found:
                values.known[attribute] = found
                return True
    return False


def _likeliest(attribute: Attribute, domain: set[int]) -> int:
    return attribute.number if attribute.number in domain else min(domain)


def _solutions(values: Values, equation: Equation, attribute: Attribute) -> Iterator[int]:
    if equation.expression == attribute:
        yield equation.wanted
        return
    if abs(attribute.number) > LARGEST:
        candidates: Iterable[int] = (attribute.number,)
    else:
        candidates = {attribute.number, *range(1, 2 * abs(attribute.number) + 2)}
    yield from (number for number in sorted(candidates) if equation.holds(values, attribute, number))


def put_in(expression: Any, sizes: Any) -> Any:
    """The expression with its sizes' values; ``sizes`` gives that of a `Dim`."""
    if isinstance(expression, Attribute):
        return expression
    if isinstance(expression, Apply):
        args = tuple(put_in(arg, sizes) for arg in expression.args)
        if any(isinstance(arg, (Apply, Attribute)) for arg in args):
            return Apply(expression.function, args)
        return expression.function(*args)
    return sizes(expression)
