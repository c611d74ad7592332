"""Equations over attributes of modules."""

import operator

import pytest

from fxprune.capture.sizes import Apply, Attribute
from fxprune.rewrite.attribute_values import Equation, put_in, solved

HEADS, SIZE, WIDTH = (Attribute("a", (name,), number) for name, number in (("heads", 8), ("size", 4), ("width", 32)))


def product(*factors):
    return Apply(operator.mul, factors)


@pytest.mark.parametrize("equations, facts, found", [
    ([(HEADS, 4)], [], {HEADS: 4}),
    ([(product(HEADS, SIZE), 16), (SIZE, 4)], [], {SIZE: 4, HEADS: 4}),
    # The first that can change does, where nothing else is said.
    ([(product(HEADS, SIZE), 16)], [], {HEADS: 4, SIZE: 4}),
    # What need not change stays, although other values would do.
    ([(Apply(operator.floordiv, (WIDTH, 3)), 10)], [], {WIDTH: 32}),
    ([(Apply(operator.floordiv, (WIDTH, SIZE)), 4), (SIZE, 4)], [], {SIZE: 4, WIDTH: 16}),
    # What Python asked is answered as before.
    ([(HEADS, 4)], [(Apply(operator.eq, (WIDTH, product(HEADS, 4))), True)], {HEADS: 4, WIDTH: 16}),
    ([(HEADS, 4)], [(Apply(operator.gt, (HEADS, 1)), True)], {HEADS: 4}),
    # A contradiction: the first stands, and the caller sees what does not hold.
    ([(HEADS, 4), (HEADS, 2)], [], {HEADS: 4}),
    ([(product(HEADS, 3), 10)], [], {}),
])
def test_solutions(equations, facts, found):
    assert solved([Equation(*e) for e in equations], [Equation(*f) for f in facts]) == found


def test_sizes_are_put_in():
    assert put_in(Apply(operator.floordiv, ("C", HEADS)), {"C": 12}.get) == Apply(operator.floordiv, (12, HEADS))
    assert put_in(Apply(operator.floordiv, ("C", "D")), {"C": 12, "D": 4}.get) == 3
