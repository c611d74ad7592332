"""Find the step: which multiple widths should be of, so that no part of a vector unit is paid for and left empty.

Kernels work on blocks of channels. Where blocks hold s channels, the time rises right behind each multiple of s and is
level up to the next one; where there are no blocks it rises evenly. So for each s the share of a block's rise that its
first channel brings is 1, against 1 / s, and the largest s for which it is near 1 is the step.
"""

from collections.abc import Mapping

import numpy as np

# The candidates, and the widths between which they are looked for.
STEPS = (32, 16, 8, 4)
LEAST, MOST = 32, 96
# The share of a block's rise that its first channel must bring: nearer to one than to a half.
SHARE = 0.75
# A rise below this share of the time is no rise.
RISE = 0.02


def widths() -> list[int]:
    """The widths that are measured, ascending: where blocks may end, and right behind.

    >>> widths()[:6], len(widths())
    ([32, 33, 36, 37, 40, 41], 33)
    """
    ends = range(LEAST, MOST + 1, min(STEPS))
    return sorted({*ends, *(end + 1 for end in ends if end < MOST)})


def step_in(times: Mapping[int, float]) -> int | None:
    """The step that these times show; 1 where they rise evenly, None where they do not rise at all.

    Args:
        times: width -> seconds, at `widths`.

    >>> step_in({w: 1 + -(-w // 8) for w in widths()}), step_in({w: 1 + w for w in widths()})
    (8, 1)
    >>> step_in({w: 1.0 for w in widths()}) is None
    True
    """
    told = False
    for step in STEPS:
        ends = range(LEAST, MOST - step + 1, step)
        rises = np.array([times[end + step] - times[end] for end in ends])
        firsts = np.array([times[end + 1] - times[end] for end in ends])
        risen = rises > RISE * times[LEAST]
        told = told or bool(risen.any())
        if risen.any() and np.median(firsts[risen] / rises[risen]) >= SHARE:
            return step
    return 1 if told else None
