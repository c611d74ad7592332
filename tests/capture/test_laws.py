"""Which expression a number is of a size, and that none is made up where there is none."""

import math
import operator

import pytest

from fxprune.capture.laws import explains, law
from fxprune.capture.sizes import Dim, readable

N, M = Dim(0, 1), Dim(0, 2)
SIZES = {N: [12, 16, 13, 12], M: [20, 20, 20, 27]}
PAIRS = list(zip(*SIZES.values(), strict=True))


def law_of(function):
    return law([function(n, m) for n, m in PAIRS], SIZES)


@pytest.mark.parametrize("function, expected", [
    (lambda n, m: n, "size(1)"),
    (lambda n, m: 3 * n - 1, "add(mul(size(1), 3), -1)"),
    (lambda n, m: -n, "mul(size(1), -1)"),
    (lambda n, m: m // 4, "floordiv(size(2), 4)"),
    (lambda n, m: -(-n // 2), "floordiv(add(size(1), 1), 2)"),
    (lambda n, m: n * m, "mul(size(1), size(2))"),
    (lambda n, m: math.isqrt(m), "isqrt(size(2))"),
    (lambda n, m: float(m), "float(size(2))"),
    (lambda n, m: math.sqrt(n), "sqrt(size(1))"),
    (lambda n, m: math.log1p(m), "log1p(size(2))"),
    (lambda n, m: 1 / math.sqrt(n * m), "pow(mul(size(1), size(2)), -0.5)"),
    (lambda n, m: 0.1 * n, "mul(float(size(1)), 0.1)"),
    (lambda n, m: n ** (1 / 3), "pow(size(1), 0.3333333333333333)"),
])
def test_laws(function, expected):
    found = law_of(function)
    assert readable(found) == expected
    fresh = [function(31, 40)]
    assert explains(found, fresh, {N: [31], M: [40]}), "right at sizes that it was not found from"


@pytest.mark.parametrize("function", [
    lambda n, m: {12: 1.0}.get(n, 7.0), lambda n, m: hash(str(n)) % 1000, lambda n, m: n if n > 12 else 1.5,
    lambda n, m: math.sin(n), lambda n, m: n % 5,
])
def test_what_follows_no_law_gets_none(function):
    assert law_of(function) is None


def test_a_law_is_held_to_type_and_value():
    double = law([2, 4, 6], {N: [1, 2, 3]})
    assert double.function is operator.mul
    assert explains(double, [8], {N: [4]})
    assert not explains(double, [9], {N: [4]}) and not explains(double, [8.0], {N: [4]})
