"""What is no tensor is part of the graph: a result refuses any other, and says what it was and what to do."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture.constant_arguments import OBJECT, as_captured, is_plain, pattern


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x, scale=1.0, deep=False, labels=None):
        y = self.b(self.a(x).relu()) * scale
        y = y + 100 if deep else y
        return y if labels is None else y + labels


class Signed(Scaled):
    """Every kind of argument."""

    def forward(self, x, /, scale=1.0, *rest, deep=False, **more):
        return super().forward(x, scale, deep, more.get("labels"))


class Nested(Scaled):
    def forward(self, batch, sizes=(1, 2)):
        return super().forward(batch["x"], sizes[0], batch["flags"][0])


class Starred(Scaled):
    def forward(self, *rest):
        return super().forward(rest[0]) + rest[1]


class Keyed(Scaled):
    def forward(self, x, **more):
        return super().forward(x, more.get("scale", 1.0)) + more["shift"]


def x():
    return torch.randn(3, 4)


def compressed(example, kind=Scaled):
    torch.manual_seed(0)
    return fxprune.compress(kind().eval(), example, channels=0.5)


@pytest.fixture(scope="module")
def small():
    return compressed({"x": x(), "scale": 2.0, "deep": False})


def refused(call, *words):
    with pytest.raises(fxprune.InputError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("round_trip", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
                         ids=["as it is", "copied", "pickled"])
def test_another_value_is_refused_with_what_to_do(small, round_trip):
    small, again = round_trip(small), "or compress again with example_inputs like this call's"
    value = x()
    expected = small.b(small.a(value).relu()) * 2.0
    assert torch.equal(small(value, 2.0), expected) and torch.equal(small(value, scale=np.float64(2)), expected)
    refused(lambda: small(value, 7.0), "captured with scale=2.0", "got 7.0", "pass scale=2.0", again)
    refused(lambda: small(value), "captured with scale=2.0", "got 1.0")
    refused(lambda: small(value, 2.0, True), "captured with deep=False", "got True")
    refused(lambda: small(value, 2.0, labels=value), "captured without labels", "got a tensor of shape [3, 4]",
            "leave it out", again)


@pytest.mark.parametrize("other", [torch.tensor(2.0), 2, True, "2.0", None, float("nan")], ids=repr)
def test_what_is_equal_and_of_another_kind_is_another(small, other):
    refused(lambda: small(x(), other), "captured with scale=2.0")


def test_a_tensor_without_dimensions_is_no_plain_number():
    small, value = compressed({"x": x(), "scale": torch.tensor(2.0)}), x()
    assert torch.equal(small(value, torch.tensor(3.0)), small.b(small.a(value).relu()) * 3.0)
    refused(lambda: small(value, 3.0), "captured with a tensor for scale", "got 3.0", "pass a tensor")


def test_an_optional_tensor_that_was_given_keeps_its_default_and_says_that_it_must_be_given():
    small, value = compressed({"x": x(), "labels": torch.randn(3, 2)}), x()
    assert inspect.signature(small.forward).parameters["labels"].default is None
    assert small(value, labels=torch.ones(3, 2)).shape == (3, 2)
    refused(lambda: small(value), "captured with a tensor for labels", "got None", "pass a tensor",
            "compress again with example_inputs like this call's")


def test_the_signature_is_the_original_s():
    wanted = str(inspect.signature(Signed().forward))
    small = compressed((x(), 2.0), Signed)
    for module in (small, copy.deepcopy(small), pickle.loads(pickle.dumps(small)), small.train()):
        assert str(inspect.signature(module.forward)) == wanted
    refused(lambda: small(x(), 2.0, 5), "captured without *rest, and got (5,)", "leave it out")
    refused(lambda: small(x(), 2.0, labels=x()), "captured without labels")
    refused(lambda: small(x(), 2.0, deep=True), "captured without deep")


def test_items_of_stars_are_taken_by_place_and_by_key():
    value, other = x(), torch.randn(3, 2)
    small = compressed((x(), other), Starred)
    assert torch.equal(small(value, other), small.b(small.a(value).relu()) + other)
    small = compressed({"x": x(), "shift": other}, Keyed)
    assert torch.equal(small(value, shift=other), small.b(small.a(value).relu()) + other)
    refused(lambda: small(value, shift=other, scale=2.0), "captured without scale")


def test_every_item_of_a_nest_is_held():
    example = {"batch": {"x": x(), "flags": [False, None]}, "sizes": (2, "a")}
    small, value = compressed(example, Nested), x()
    assert small({"x": value, "flags": (False, None)}, [2, "a"]).shape == (3, 2)
    refused(lambda: small({"x": value, "flags": [True, None]}, (2, "a")), "captured with batch['flags'][0]=False")
    refused(lambda: small({"x": value, "flags": [False]}, (2, "a")), "captured with batch['flags']=[False, None]")
    refused(lambda: small({"x": value, "flags": [False, None]}, (2, "b")), "captured with sizes[1]='a'")
    refused(lambda: small({"x": value, "flags": [False, None], "y": 1}, (2, "a")), "captured without batch['y']")
    refused(lambda: small({"x": 1.0, "flags": [False, None]}, (2, "a")), "captured with a tensor for batch['x']")


def test_plain_tensors_are_not_asked_about():
    class Plain(nn.Sequential):
        pass

    small = fxprune.compress(Plain(nn.Linear(4, 8), nn.Linear(8, 2)), x(), channels=0.5)
    assert as_captured not in [node.target for node in small.graph.nodes]


def test_it_stays_where_dead_code_goes(small):
    small = copy.deepcopy(small)
    small.graph.eliminate_dead_code()
    small.recompile()
    refused(lambda: small(x(), 7.0), "captured with scale=2.0")


def test_compiled_whole(small):
    compiled, value = torch.compile(small, fullgraph=True, backend="eager"), x()
    assert torch.equal(compiled(value, scale=2.0), small(value, scale=2.0))


def test_of_other_objects_the_kind_is_held():
    cut = slice(0, 2)
    assert pattern(cut) == cut and pattern(np.float32(2)) == 2.0
    assert pattern(re.compile("a")) == (OBJECT, "re.Pattern") and pattern(torch.relu)[0] == OBJECT
    assert is_plain(pattern({"a": [1, None]})) and not is_plain(pattern([re.compile("a")]))
    as_captured(("f", "n"), (torch.relu, float("nan")), (pattern(torch.relu), pattern(float("nan"))), ())
    refused(lambda: as_captured(("f",), (torch.tanh,), (pattern(torch.relu),), ()), "relu", "tanh")
