"""At which lengths a layer is measured, and what lies between them.

An axis is measured at its full length, at its least, and at lengths between, coarse levels first, each level holding
all of the one before: a table that is interrupted, or that has little time, is coarser and not shorter. Lengths are
multiples of the backend's step. Between them the time is taken to be linear along each axis, so that what a
convolution's is made of (a constant, terms in its width in, its width out and their product) is met exactly.

A layer of more than two axes (a concatenation) is measured along the diagonal alone, where all of its axes are the same
share of their full lengths, since what it does is to go over its elements once.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from fxprune.planning.budget import step_within

# Shares of the full length, by level.
LEVELS = ((0.0, 1.0), (0.0, 0.5, 1.0), (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875,
                                                                     1.0))
Point = tuple[int, ...]


def along(full: int, base: int, grain: int, step: int, level: int) -> tuple[int, ...]:
    """The lengths at which an axis is measured, ascending.

    Args:
        full: its length as it is.
        base: how much of it no group owns.
        grain: how much it loses with one channel (H·W behind a flatten).
        step: widths are multiples of it, or of what `step_within` makes of it in narrow groups.
        level: how finely.

    >>> along(64, 0, 1, 8, 2), along(20, 0, 1, 8, 0), along(3, 0, 1, 8, 1), along(196, 0, 49, 1, 1)
    ((8, 16, 32, 48, 64), (4, 20), (1, 3), (49, 98, 196))
    """
    owned = (full - base) // grain
    unit = step_within(owned, step)
    least = unit if owned > unit else 1
    wanted = {max(least, int(share * owned) // unit * unit) for share in LEVELS[level]} | {owned}
    return tuple(base + grain * width for width in sorted(wanted))


def points(axes: Sequence[Sequence[int]]) -> list[Point]:
    """The lengths at which a layer of these axes is measured: all combinations of two axes, else the diagonal.

    >>> points([(8, 64), (4, 32)])
    [(8, 4), (8, 32), (64, 4), (64, 32)]
    """
    if len(axes) <= 2:
        return list(product(*axes))
    most = max(map(len, axes))
    shares = np.linspace(0, 1, most)
    # Each axis' own lengths, at the nearest place along it.
    return [tuple(axis[round(share * (len(axis) - 1))] for axis in axes) for share in shares]


def between(axes: Sequence[Sequence[int]], times: Callable[[Point], float]
            ) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """The time at any lengths of the axes.

    Args:
        axes: the measured lengths of each axis, ascending.
        times: of each of the `points`.

    Returns:
        A function of one array per axis, all of one shape, that gives seconds of that shape; beyond the grid its edge
        goes on.

    >>> time = between([(0, 10), (0, 4)], lambda point: point[0] * point[1])
    >>> time([np.array([5, 10]), np.array([2, 4])]).tolist()
    [10.0, 40.0]
    """
    grid = points(axes)
    values = np.array([times(point) for point in grid])
    if len(axes) <= 2:
        table = values.reshape([len(axis) for axis in axes])
        knots = [np.asarray(axis, float) for axis in axes]
        return lambda lengths: _linear(knots, table, lengths)
    full = np.array([axis[-1] for axis in axes], float)
    shares = np.array([np.mean(np.array(point) / full) for point in grid])
    return lambda lengths: np.interp(np.mean([a / n for a, n in zip(lengths, full, strict=True)], axis=0), shares,
                                     values)


def _linear(knots: Sequence[np.ndarray], table: np.ndarray, lengths: Sequence[np.ndarray]) -> np.ndarray:
    """Linear along one axis, bilinear along two."""
    places = [_placed(knot, np.asarray(length, float)) for knot, length in zip(knots, lengths, strict=True)]
    total = np.zeros(np.shape(lengths[0]))
    for corner in product((0, 1), repeat=len(knots)):
        weight = np.ones(np.shape(lengths[0]))
        for (_, share), side in zip(places, corner, strict=True):
            weight = weight * (share if side else 1 - share)
        index = tuple(np.minimum(low + side, len(knot) - 1)
                      for (low, _), side, knot in zip(places, corner, knots, strict=True))
        total = total + weight * table[index]
    return total


def _placed(knot: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The knot below each length, and how far beyond it the length is, in units of the next one's distance."""
    if len(knot) == 1:
        return np.zeros(length.shape, np.int64), np.zeros(length.shape)
    low = np.clip(np.searchsorted(knot, length, side="right") - 1, 0, len(knot) - 2)
    # Below the least length nothing was measured: the edge's time holds, and never a negative one.
    return low, np.clip((length - knot[low]) / (knot[low + 1] - knot[low]), 0.0, 1.0)
