"""Between the grid's points: exact for what a convolution's time is made of."""

import numpy as np
import pytest

from fxprune.latency.grid import LEVELS, along, between, points
from fxprune.planning.budget import step_within


def test_levels_hold_those_before():
    for full, base, grain, step in ((64, 0, 1, 8), (100, 4, 1, 8), (48, 0, 4, 1), (20, 0, 1, 8), (7, 0, 1, 8),
                                    (1, 0, 1, 1)):
        levels = [set(along(full, base, grain, step, level)) for level in range(len(LEVELS))]
        assert all(a <= b for a, b in zip(levels, levels[1:], strict=False))
        for lengths in levels:
            assert max(lengths) == full and all((n - base) % grain == 0 and n > base for n in lengths)
            owned = [(n - base) // grain for n in lengths - {full}]
            assert all(n % step_within((full - base) // grain, step) == 0 for n in owned)


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_a_constant_both_widths_and_their_product_are_exact(level):
    axes = [along(64, 0, 1, 8, level), along(48, 0, 1, 8, level)]
    time = between(axes, lambda p: 3 + 2 * p[0] + 5 * p[1] + 7 * p[0] * p[1])
    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(8, 65), np.arange(8, 49)))
    assert np.allclose(time([a, b]), 3 + 2 * a + 5 * b + 7 * a * b)
    # What is narrower than all that was measured takes the time of the narrowest.
    assert time([np.array([1]), np.array([8])]) == time([np.array([8]), np.array([8])])


def test_more_than_two_axes_go_by_their_share():
    axes = [along(n, 0, 1, 1, 2) for n in (16, 8, 4)]
    assert len(points(axes)) == 5 and points(axes)[-1] == (16, 8, 4)
    time = between(axes, lambda p: float(sum(p)))
    assert time([np.array([16, 8]), np.array([8, 4]), np.array([4, 2])]) == pytest.approx([28, 14], rel=0.1)


def test_one_point_is_a_constant():
    assert between([(4,)], lambda p: 2.0)([np.array([4, 1])]).tolist() == [2.0, 2.0]
