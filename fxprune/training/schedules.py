"""How the strength of a penalty changes while training.

A schedule is a frozen dataclass with one method, `advance`: from the state before a step to the state after it. All
that changes is in the state, plain numbers, so that it lies in a checkpoint and training resumes bit for bit.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol

from fxprune.errors import InputError


class Measure(Protocol):
    """What a schedule may ask of the weights; each answer reads them once (on a GPU: one synchronisation)."""

    def __call__(self, threshold: float) -> float:
        """The fraction of MACs that the intersection vote keeps."""
        ...

    def distance(self, until: float, cost: str) -> tuple[float, float]:
        """The fraction of ``cost`` that the votes keep, and how far blocks must shrink until they keep ``until``."""
        ...


@dataclass(frozen=True)
class Progress:
    """Args:
    steps: calls of ``dwgl.step`` so far.
    factor: what the strength is multiplied by now.
    kept: the fraction of the cost that the vote would keep, when it was last measured; 1 before.
    length: where the schedule says how far blocks shrink: by length · c_b an update, in place of lr · λ · c_b.
    due: the step at which the votes are counted next.
    released: nothing is pressed any more; what all voters have given up is held at zero.
    """

    steps: int = 0
    factor: float = 1.0
    kept: float = 1.0
    length: float | None = None
    due: int = 0
    released: bool = False


class Schedule(Protocol):
    """Anything with a `start` and an `advance`."""

    def start(self) -> Progress: ...

    def advance(self, now: Progress, measure: Measure) -> Progress:
        """The state after one more step."""
        ...


@dataclass(frozen=True)
class Constant:
    """factor = 1."""

    def start(self) -> Progress:
        return Progress()

    def advance(self, now: Progress, measure: Measure) -> Progress:
        return replace(now, steps=now.steps + 1)


@dataclass(frozen=True)
class WarmUp:
    """factor = min(1, (t + 1) / steps): linear over the first ``steps`` steps.

    >>> schedule = WarmUp(steps=4)
    >>> now = schedule.start()
    >>> for _ in range(2):
    ...     now = schedule.advance(now, lambda threshold: 1.0)
    >>> schedule.start().factor, now.factor
    (0.25, 0.75)
    """

    steps: int

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(f"WarmUp needs a number of steps >= 1, got {self.steps!r}; write WarmUp(steps=1000)")

    def start(self) -> Progress:
        return Progress(factor=1 / self.steps)

    def advance(self, now: Progress, measure: Measure) -> Progress:
        steps = now.steps + 1
        return replace(now, steps=steps, factor=min(1.0, (steps + 1) / self.steps))


@dataclass(frozen=True)
class Ramp:
    """The factor grows until the vote reaches a target, and then holds, or is released.

    Every ``every`` steps the intersection vote is counted; while what it keeps costs more than ``until``, the factor
    grows by ``rate`` (from 0), up to ``limit``. It grows again should the target be lost. This is the additive rise of
    GReg-1 (Wang et al. 2021), stopped by the vote in place of a fixed ceiling: our addition.

    A factor that holds goes on driving channels to zero, beyond the target. ``after=0`` lets those that are left
    recover while the rest of the training lasts; a filter that is at zero together with its scale has no gradient, and
    stays there.

    Args:
        until: the fraction of MACs to be kept, in (0, 1).
        rate: what the factor grows by each time.
        every: steps between two counts; counting reads the weights once (on a GPU: one synchronisation).
        limit: the greatest factor.
        threshold: the norm below which a voter gives a channel up.
        after: the factor once the target is reached; None holds what it has grown to.
    """

    until: float
    rate: float = 0.1
    every: int = 100
    limit: float = math.inf
    threshold: float = 1e-3
    after: float | None = None

    def __post_init__(self) -> None:
        if self.after is not None and not self.after >= 0:
            raise InputError(f"Ramp(after=) must be a factor >= 0, or None to hold, got {self.after!r}; write after=0")
        if not 0 < self.until < 1:
            raise InputError(f"Ramp(until=) must be the fraction of MACs to be kept, in (0, 1), got {self.until!r}; "
                             "write Ramp(until=0.5)")
        if not self.rate > 0 or not self.limit > 0 or not self.every >= 1:
            raise InputError(f"Ramp needs rate > 0, limit > 0 and every >= 1, got rate={self.rate!r}, "
                             f"limit={self.limit!r}, every={self.every!r}; write Ramp(until=0.5, rate=0.1, every=100)")

    def start(self) -> Progress:
        return Progress(factor=min(self.rate, self.limit))

    def advance(self, now: Progress, measure: Measure) -> Progress:
        steps = now.steps + 1
        if steps % self.every:
            return replace(now, steps=steps)
        kept = measure(self.threshold)
        if kept > self.until:
            return Progress(steps, min(now.factor + self.rate, self.limit), kept)
        return Progress(steps, now.factor if self.after is None else self.after, kept)
