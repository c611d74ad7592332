"""What the example gives for each argument of ``forward``, and how it is called in a graph."""

import inspect

import pytest
from torch import nn

from fxprune.errors import InputError
from fxprune.ir.call_arguments import EMPTY, arguments, named


class Takes(nn.Module):
    def forward(self, x, y=2, *rest, flag=False, **more):
        return x


def test_every_argument_of_forward_in_its_order_whatever_the_example_gives_first():
    bound = arguments(Takes(), ((), {"z": 3, "flag": True, "x": 1}))
    assert [(a.name, a.default, a.value) for a in bound] == [
        ("x", EMPTY, 1), ("y", 2, EMPTY), ("rest", EMPTY, EMPTY), ("flag", False, True), ("more", EMPTY, {"z": 3})]
    assert bound[3].kind is inspect.Parameter.KEYWORD_ONLY
    assert [a.effective for a in bound] == [1, 2, (), True, {"z": 3}]
    assert [a.given for a in bound] == [True, False, False, True, True]


@pytest.mark.parametrize(("example", "expected"), [
    (((1, 2, 3, 4), {"z": 5}), [("x", 1), ("y", 2), ("rest[0]", 3), ("rest[1]", 4), ("z", 5)]),
    (((1,), {"flag": None}), [("x", 1), ("flag", None)]),
    (((), {"y": 1, "x": 2}), [("x", 2), ("y", 1)]),
])
def test_a_name_for_everything_that_is_given(example, expected):
    assert list(named(arguments(Takes(), example))) == expected


def test_what_does_not_fit_is_refused_with_the_signature():
    with pytest.raises(InputError, match=r"must fit forward\(x, y=2, .*missing a required argument: 'x'; pass a tuple"):
        arguments(Takes(), ((), {"y": 1}))
