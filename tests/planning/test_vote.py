"""A vote makes one score of many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fxprune.errors import InputError
from fxprune.planning.vote import VOTES, vote

scores = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.floats(0, 1e300))


@given(scores, st.floats(0, 10))
def test_a_threshold_on_the_vote_is_a_vote_on_thresholds(scores, threshold):
    gives_up = scores < threshold
    assert ((vote(scores, "intersection") < threshold) == gives_up.all(axis=0)).all()
    assert ((vote(scores, "union") < threshold) == gives_up.any(axis=0)).all()
    if len(scores) % 2:
        assert ((vote(scores, "majority") < threshold) == (gives_up.sum(axis=0) * 2 > len(scores))).all()


@given(scores)
def test_joint_is_a_norm(scores):
    joint = vote(scores, "joint")
    assert np.isfinite(joint).all()
    assert (joint >= scores.max(axis=0)).all()
    assert (joint <= scores.max(axis=0) * np.sqrt(len(scores)) * (1 + 1e-12)).all()


@given(scores, st.sampled_from(sorted(VOTES)))
def test_a_single_voter_decides_bit_for_bit(scores, name):
    assert (vote(scores[:1], name) == scores[0]).all()


@pytest.mark.parametrize("name", ["jont", None, ["joint"]])
def test_unknown_votes_are_refused(name):
    with pytest.raises(InputError, match=r"unknown vote .*Known: 'intersection', 'joint', 'majority', 'union'"):
        vote(np.ones((1, 1)), name)
