"""Find the step: which multiple widths should be of, so that no part of a vector unit is paid for and left empty.

Kernels work on blocks of channels. Where blocks hold s channels, the time rises right behind each multiple of s and is
level up to the next one; where there are no blocks it rises evenly. So for each s the share of all rise that comes
right behind multiples of s is 1, against a half where blocks are half as large and 1 / s where there are none, and the
largest s for which it is well above a half is the step. Of one layer that is not to be seen (what kernel runs may
change between two widths), of the sum of several it is.
"""

from collections.abc import Mapping, Sequence

# The candidates, and the widths between which they are looked for.
STEPS = (32, 16, 8, 4)
LEAST, MOST = 32, 96
# The share of the rise that must come right behind multiples.
SHARE = 0.6
# A rise below this share of the time is no rise.
RISE = 0.02


def widths() -> list[int]:
    """The widths that are measured, ascending: where blocks may end, and right behind.

    >>> widths()[:6], len(widths())
    ([32, 33, 36, 37, 40, 41], 33)
    """
    ends = range(LEAST, MOST + 1, min(STEPS))
    return sorted({*ends, *(end + 1 for end in ends if end < MOST)})


def step_in(layers: Sequence[Mapping[int, float]]) -> int | None:
    """The step that these times show; 1 where they rise evenly, None where they do not rise at all.

    Args:
        layers: of each, width -> seconds, at `widths`.

    >>> stairs, even = {w: 1 + -(-w // 8) for w in widths()}, {w: 1 + w / 8 for w in widths()}
    >>> step_in([stairs]), step_in([even]), step_in([even, stairs, stairs])
    (8, 1, 8)
    >>> step_in([{w: 1.0 for w in widths()}]) is None
    True
    """
    times = {width: sum(layer[width] for layer in layers) for width in widths()}
    rise = times[MOST] - times[LEAST]
    if rise <= RISE * times[LEAST]:
        return None
    return next((step for step in STEPS
                 if sum(times[end + 1] - times[end] for end in range(LEAST, MOST, step)) >= SHARE * rise), 1)
