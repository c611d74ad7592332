"""From all of a model to a target in k steps, along a cosine or an exponential."""

import math
from numbers import Real

from fxprune.errors import BudgetError, InputError, unknown

SHAPES = ("cosine", "exponential")


def schedule(target: float, steps: int, shape: str = "cosine") -> tuple[float, ...]:
    """What is kept of the first original after each step: 1.0 is where it begins, ``target`` where it ends.

    After step i of k that is, along a cosine, target + (1 - target) · (1 + cos(π i / k)) / 2: small steps at first and
    in the end; along an exponential target^(i / k): the same share of what is left in every step (de Jorge et al.,
    "Progressive Skeletonization", ICLR 2021, which HALP takes for its some 30 steps).

    Args:
        target: the fraction of the first original that is left in the end, in (0, 1].
        steps: how many compressions lead there.
        shape: ``"cosine"`` or ``"exponential"``.

    Raises:
        BudgetError: no such fraction.
        InputError: no such number of steps, or shape.

    >>> [round(kept, 3) for kept in schedule(0.4, steps=4)]
    [0.912, 0.7, 0.488, 0.4]
    >>> [round(kept, 3) for kept in schedule(0.4, steps=2, shape="exponential")]
    [0.632, 0.4]
    """
    if isinstance(target, bool) or not isinstance(target, Real) or not 0 < target <= 1:
        raise BudgetError(f"target must be the fraction that is kept in the end, in (0, 1], got {target!r}; write "
                          "schedule(0.5, steps=4)")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps must be an integer >= 1, got {steps!r}; write schedule(0.5, steps=4)")
    if shape not in SHAPES:
        raise InputError(unknown("shape of a schedule", shape, SHAPES))
    end = float(target)
    if shape == "exponential":
        return (*(end ** (step / steps) for step in range(1, steps)), end)
    return (*(end + (1 - end) * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(1, steps)), end)
