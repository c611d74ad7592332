"""Small inputs, which prove as much as large ones: what a plan does to a model does not depend on how many pixels,
positions or samples there are."""

from collections.abc import Iterator

from fxprune.capture.dynamic_sizes import Axis
from fxprune.verification.input_dimensions import Change, resized

# A longer dimension is cut to one of these, and what is left over of the step: strides halve an image five times.
SMALL, STEP = (32, 64), 32
# A larger batch is cut to the second.
LARGE_BATCH, BATCH = 8, 2


def small_sizes(axes: list[Axis], second: bool) -> Iterator[Change]:
    """Changes of specs to small inputs, where any dimension can be cut; smallest first.

    Args:
        axes: what may be of another length.
        second: whether it is the second run, at which each has a length that it did not have in the first.
    """
    for small in SMALL:
        lengths: dict[tuple[int, int], int] = {}
        cut = False
        for number, axis in enumerate(axes):
            pair = _lengths(axis, small)
            cut = cut or pair[0] != axis.length
            # At first, images are not square, and the second are as large as the first.
            turned = small == SMALL[0] and number % 2 and pair[0] != axis.length
            lengths |= dict.fromkeys(axis.members, pair[second != bool(turned)])
        if cut:
            yield resized(lengths)


def _lengths(axis: Axis, small: int) -> tuple[int, int]:
    """
    >>> [_lengths(Axis(((0, 2),), length), 32) for length in (224, 299, 32)]
    [(32, 64), (43, 75), (32, 40)]
    >>> [_lengths(Axis(((0, 0),), length), 32) for length in (1, 64)]
    [(1, 2), (2, 3)]
    """
    n = axis.length
    if axis.is_batch:
        first = n if n <= LARGE_BATCH else BATCH
        return first, first + 1
    if n > small + n % STEP:
        return small + n % STEP, small + n % STEP + STEP
    return n, n + max((axis.lengths()[0] - n) // 4, 1)
