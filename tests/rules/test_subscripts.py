"""Slices among the kept: what they take, and that they are written as the model writes them."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxprune.rules.subscripts import sliced

SITE = SimpleNamespace(value=lambda number: number, constant=lambda table, source: table.numpy())
BOUNDS = st.none() | st.integers(-9, 9)


@given(st.lists(st.booleans(), min_size=1, max_size=7), BOUNDS, BOUNDS, st.sampled_from([None, 1, 2, 3]))
def test_a_slice_takes_of_the_kept_what_it_took(kept, start, stop, step):
    mask, item = np.array(kept), slice(start, stop, step)
    places = np.arange(len(kept))
    wanted = [int(place) for place in places[item] if mask[place]]
    assert places[mask][sliced(SITE, item, mask)].tolist() == wanted


@pytest.mark.parametrize(("kept", "item", "found"), [
    ("1010", slice(None, 2), slice(None, 1)), ("1010", slice(0, 4), slice(0, 2)),
    ("1100", slice(2, None), slice(2, None)),
    ("0011", slice(-2, None), slice(-2, None)), ("1100", slice(-2, None), slice(2, None)),
    ("1101", slice(1, -1), slice(1, -1)), ("1110", slice(None, -1, 1), slice(None, 3, 1)),
    ("11001100", slice(1, None, 2), slice(1, None, 2)), ("11001100", slice(None, None, 2), slice(None, None, 2)),
    ("1011", slice(None, None, 2), slice(0, 2)), ("10111", slice(None, None, 2), [0, 1, 3]),
])
def test_bounds_stay_as_they_are_written(kept, item, found):
    new = sliced(SITE, item, np.array([digit == "1" for digit in kept]))
    assert (new if isinstance(new, slice) else new.tolist()) == found
