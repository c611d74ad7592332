"""Samples of times: calls that take turns, medians with quartiles, and how sure they are.

The calls of one list are timed in rounds, each once a round, and every other round backwards: what slows the machine
down for a while slows all of them down. How sure a median is follows from its quartiles: half of the width of the notch
in a box plot, 1.57 · (q₃ − q₁) / √n, is about the 95 % interval of a difference of medians (McGill, Tukey and Larsen,
The American Statistician 1978).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fxprune.errors import MeasurementError
from fxprune.latency import heap

# One pass; gives the seconds that it took.
Timed = Callable[[], float]


@dataclass(frozen=True)
class Sample:
    """One thing, timed several times.

    Args:
        median: seconds.
        low, high: quartiles, in seconds.
        count: how many passes were timed.

    >>> sample = Sample.of(np.array([0.010, 0.011, 0.012, 0.013, 0.014]))
    >>> sample.median, sample.count, round(sample.noise, 2)
    (0.012, 5, 0.12)
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, seconds: np.ndarray) -> "Sample":
        """From seconds, float64 [n]."""
        low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
        return cls(float(middle), float(low), float(high), len(seconds))

    @property
    def noise(self) -> float:
        """The share of it by which the median may be off."""
        return 1.57 * (self.high - self.low) / math.sqrt(self.count) / self.median

    def times(self, factor: float) -> "Sample":
        """The same sample on a machine that is slower by that factor."""
        return Sample(self.median * factor, self.low * factor, self.high * factor, self.count)


def interleaved(calls: Sequence[Timed], rounds: int, warmup: int = 0) -> np.ndarray:
    """Seconds, float64 [calls, rounds].

    Raises:
        MeasurementError: a clock that stands still or runs backwards.
    """
    found = np.empty((len(calls), rounds))
    heap.settle()
    for turn in range(-warmup, rounds):
        order = range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls)))
        for place in order:
            seconds = _checked(calls[place]())
            if turn >= 0:
                found[place, turn] = seconds
    return found


def _checked(seconds: float) -> float:
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds) or seconds <= 0:
        raise MeasurementError(f"a pass must take a time above zero, and the clock said {seconds!r} seconds: it stands "
                               "still, runs backwards or is too coarse; measure with another clock= or a larger batch=")
    return float(seconds)
