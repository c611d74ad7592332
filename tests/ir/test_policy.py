"""A policy holds one of the words that it may hold."""

import pickle

import pytest

import fxprune
from fxprune import InputError, Policy


@pytest.mark.parametrize(("wrong", "message"), [
    ({"heads": "hole"}, r"Policy\(heads=\) must be 'dims' or 'whole', got 'hole'; write Policy\(heads='dims'\)"),
    ({"heads": None}, "got None; write"),
    ({"heads": ["dims"]}, r"got \['dims'\]; write"),
    ({"grouped": "dims"}, r"Policy\(grouped=\) must be 'within' or 'whole', got 'dims'"),
])
def test_other_words_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Policy(**wrong)


def test_policies_are_values():
    assert Policy() == Policy(heads="dims", grouped="within") != Policy(grouped="whole")
    assert pickle.loads(pickle.dumps(Policy(heads="whole"))) == fxprune.Policy(heads="whole")
