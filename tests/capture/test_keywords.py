"""Arguments in any order, by keyword and by position; the proof pairs them by itself."""

import inspect
from dataclasses import replace

import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture import tracer


class Weighted(nn.Module):
    """Swapped arguments fit, and give something else."""

    def __init__(self):
        super().__init__()
        self.l, self.m, self.o = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, a, b):
        return self.o(self.l(a).relu() + 3 * self.m(b))


def net():
    torch.manual_seed(0)
    return Weighted().eval()


def x():
    return torch.randn(3, 4)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_dictionary_in_any_order(order):
    small = fxprune.compress(net(), {name: x() for name in order}, channels=0.5)
    assert list(inspect.signature(small.forward).parameters) == ["a", "b"]
    a, b = x(), x()
    expected = small.o(small.l(a).relu() + 3 * small.m(b))
    for got in (small(a, b), small(a=a, b=b), small(b=b, a=a), small(a, b=b)):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("example", [{"a": x(), "b": x()}, (x(), x())], ids=["by keyword", "by position"])
def test_a_pairing_that_is_wrong_is_not_repeated_by_the_proof(monkeypatch, example):
    right = tracer.arguments

    def swapped(model, given):
        one, other = right(model, given)
        return replace(one, value=other.value), replace(other, value=one.value)

    monkeypatch.setattr(tracer, "arguments", swapped)
    with pytest.raises(fxprune.VerificationError, match="'[lm]' must equal the masked original"):
        fxprune.compress(net(), example, channels=0.5)


class Looked(Weighted):
    """A length of b is looked up: another one is not known."""

    def forward(self, a, b):
        return super().forward(a, b.mean(1)) * {5: 2.0}[b.shape[1]]


def test_a_fixed_length_is_that_of_its_own_argument():
    small = fxprune.compress(Looked().eval(), {"b": torch.randn(3, 5, 4), "a": x()}, channels=0.5)
    assert small(torch.randn(2, 4), torch.randn(2, 5, 4)).shape == (2, 2)
    with pytest.raises(AssertionError, match="captured with b of size 5 in dimension 1"):
        small(torch.randn(2, 4), torch.randn(2, 6, 4))
