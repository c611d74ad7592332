"""Lists of indices survive as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxprune.planning.ranges import count, from_text, to_text


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)), st.integers(0, n),
                                                      st.booleans())))
def test_round_trip(case):
    length, order, count, ascending = case
    indices = tuple(sorted(order[:count]) if ascending else order[:count])
    assert from_text(to_text(indices), length) == indices


@given(st.text(alphabet="0123456789,-", max_size=12))
def test_whatever_is_read_is_in_range_and_unique(text):
    try:
        indices = from_text(text, 50)
    except ValueError:
        return
    assert len(set(indices)) == len(indices) and all(0 <= i < 50 for i in indices)


def test_what_is_long_is_refused_before_it_is_written_out():
    assert count(f"0-{2 ** 30}") == 2 ** 30 + 1
    with pytest.raises(ValueError, match="or there are more than 16,777,216"):
        from_text(f"0-{2 ** 30}", 2 ** 31)
    # In linear time: counting each index in the list took hours.
    text = ",".join(map(str, range(200_000)))
    with pytest.raises(ValueError, match="index 199999 is repeated"):
        from_text(f"{text},199999", 10 ** 6)
