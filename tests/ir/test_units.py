"""Units, ties and reasons: which reason is told where several hold a channel."""

import numpy as np
import pytest

from fxprune.ir.units import Reason, Ties

FIRST, SECOND = Reason("model output", "output"), Reason("softmax runs over it", "softmax", "net.py:7")


def reasons(ties: Ties, vector: np.ndarray) -> list[Reason | None]:
    """What holds each index of a vector of units."""
    closure = ties.close()
    held = closure.frozen[closure.channel[vector]]
    return [None if reason < 0 else closure.reasons[reason] for reason in held.tolist()]


def test_of_two_reasons_the_first_that_was_met_is_told():
    ties = Ties()
    a = ties.fresh(3)
    ties.freeze(a[:2], FIRST)
    ties.freeze(a, SECOND)
    assert reasons(ties, a) == [FIRST, FIRST, SECOND]


def test_so_it_is_where_the_channel_is_held_in_two_places():
    ties = Ties()
    a, b = ties.fresh(3), ties.fresh(3)
    ties.tie(a, b)
    ties.freeze(b[:1], FIRST)
    ties.freeze(a[:2], SECOND)
    assert reasons(ties, a) == [FIRST, SECOND, None]


def test_of_units_tied_with_a_fixed_vector_the_reason_is_that_vectors():
    ties = Ties()
    a = ties.fresh(2)
    ties.tie(a, ties.fixed(2, SECOND))
    ties.freeze(a, FIRST)
    assert reasons(ties, a) == [SECOND, SECOND]


def test_within_one_freeze_of_one_channel_the_first_index_decides():
    ties = Ties()
    a, b = ties.fresh(2), ties.fresh(2)
    ties.tie(np.concatenate([a[:1], a[:1]]), b)
    ties.tie(b, np.concatenate([ties.fixed(1, FIRST), ties.fixed(1, SECOND)]))
    assert reasons(ties, a)[0] == FIRST


def test_vectors_of_unlike_lengths_are_no_tie():
    ties = Ties()
    with pytest.raises(ValueError, match="ties need vectors of one length, got 2 and 3"):
        ties.tie(ties.fresh(2), ties.fresh(3))
