"""What a number that Python computed unseen has to do with a size, told from what both were at several sizes.

A law is an inference: it explains the numbers that it was found from, and has to be tried on others.
"""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

from fxprune.capture.sizes import Apply, Attribute, Dim

Numbers = Sequence[float]
# A product or a power may be rounded otherwise than the model's own expression.
CLOSE = 1e-12
# Divisors and exponents that people write.
_DIVISORS = (*range(2, 65), 96, 128, 256, 512)
_EXPONENTS = tuple(sorted((n / d for d in (1, 2, 3, 4) for n in range(-6, 7) if n), key=lambda p: (abs(p), -p)))
_FUNCTIONS = (math.sqrt, math.log, math.log2, math.log10, math.log1p)


def law(numbers: Numbers, sizes: Mapping[Any, Numbers]) -> Any:
    """The simplest expression that gives ``numbers``, or None.

    Args:
        numbers: the number at each of several sizes; all int, or all float.
        sizes: what is at hand, likeliest first: expression -> its values there.

    >>> width = Dim(0, 3)
    >>> law([4.0, 5.0, 6.0], {width: [16, 25, 36]}).function is math.sqrt
    True
    >>> law([4, 5, 9], {width: [16, 25, 36]}) is None
    True
    """
    kinds = {type(number) for number in numbers}
    if len(kinds) > 1:
        return None
    forms = _whole if kinds == {int} else _real
    return next((found for base, values in _bases(sizes) for found in forms(base, values, numbers)
                 if explains(found, numbers, sizes)), None)


def explains(expression: Any, numbers: Numbers, sizes: Mapping[Any, Numbers]) -> bool:
    """Whether the expression has these values, as far as rounding allows."""
    try:
        got = [value(expression, {size: values[k] for size, values in sizes.items()}) for k in range(len(numbers))]
    except (ArithmeticError, ValueError):
        return False
    return all(type(a) is type(b) and (a == b or isinstance(b, float) and math.isclose(a, b, rel_tol=CLOSE))
               for a, b in zip(got, numbers, strict=True))


def value(expression: Any, known: Mapping[Any, float]) -> Any:
    """What an expression is, given the numbers that its parts are.

    >>> value(Apply(operator.add, (Dim(0, 1), 2)), {Dim(0, 1): 5})
    7
    """
    if isinstance(expression, Apply):
        if expression in known:
            return known[expression]
        return expression.function(*(value(arg, known) for arg in expression.args))
    if isinstance(expression, Attribute):
        return known.get(expression, expression.number)
    return known[expression] if isinstance(expression, Dim) else expression


def _bases(sizes: Mapping[Any, Numbers]) -> Iterator[tuple[Any, Numbers]]:
    """Each size alone, then products of two lengths."""
    yield from sizes.items()
    lengths = [size for size in sizes if isinstance(size, Dim)]
    for one, two in combinations_with_replacement(lengths, 2):
        yield Apply(operator.mul, (one, two)), [a * b for a, b in zip(sizes[one], sizes[two], strict=True)]


def _whole(base: Any, values: Numbers, numbers: Numbers) -> Iterator[Any]:
    """Integers: the size, a multiple and an offset, a part of it rounded down or up, its root, its logarithm."""
    yield base
    yield Apply(math.trunc, (base,))
    if all(isinstance(v, int) for v in values):
        yield Apply(math.isqrt, (base,))
        yield from _affine(base, values, numbers)
        yield from _parts(base, values, numbers)
        for rounding in (math.floor, math.ceil):
            yield Apply(rounding, (Apply(math.log2, (base,)),))


def _affine(base: Any, values: Numbers, numbers: Numbers) -> Iterator[Any]:
    first, last = min(range(len(values)), key=values.__getitem__), max(range(len(values)), key=values.__getitem__)
    run, rise = values[last] - values[first], numbers[last] - numbers[first]
    if not run or rise % run:
        return
    times = int(rise // run)
    yield _plus(_times(base, times), int(numbers[first] - times * values[first]))


def _parts(base: Any, values: Numbers, numbers: Numbers) -> Iterator[Any]:
    """``(size + c) // k``, with the c nearest to nothing; rounding up is c = k - 1."""
    for k in _DIVISORS:
        low = max(k * n - v for n, v in zip(numbers, values, strict=True))
        high = min(k * n - v + k - 1 for n, v in zip(numbers, values, strict=True))
        if low <= high:
            for c in dict.fromkeys(c for c in (0, k - 1, k // 2, low) if low <= c <= high):
                yield Apply(operator.floordiv, (_plus(base, c), k))


def _real(base: Any, values: Numbers, numbers: Numbers) -> Iterator[Any]:
    """Floats: the size, a function of it, a multiple of a power of it, a multiple and an offset."""
    yield base
    yield Apply(float, (base,))
    if min(values) <= 0:
        return
    for function in _FUNCTIONS:
        yield Apply(function, (base,))
    for function in _FUNCTIONS:
        yield from _scaled(Apply(function, (base,)), [function(v) for v in values], numbers)
    for exponent in _EXPONENTS:
        try:
            powers = [v ** exponent for v in values]
        except OverflowError:
            continue
        power = Apply(operator.pow, (base, exponent)) if exponent != 1 else Apply(float, (base,))
        yield power
        yield from _scaled(power, powers, numbers)
    first, last = min(range(len(values)), key=values.__getitem__), max(range(len(values)), key=values.__getitem__)
    if values[first] != values[last]:
        slope = (numbers[last] - numbers[first]) / (values[last] - values[first])
        yield Apply(operator.add, (Apply(operator.mul, (base, slope)), numbers[first] - slope * values[first]))


def _scaled(expression: Any, values: Numbers, numbers: Numbers) -> Iterator[Any]:
    if all(values) and math.isclose(numbers[0] / values[0], numbers[-1] / values[-1], rel_tol=CLOSE):
        factor = numbers[0] / values[0]
        yield from (Apply(operator.mul, (expression, c)) for c in (float(f"{factor:.12g}"), factor))


def _times(base: Any, times: int) -> Any:
    return base if times == 1 else Apply(operator.mul, (base, times))


def _plus(base: Any, offset: int) -> Any:
    return base if offset == 0 else Apply(operator.add, (base, offset))
