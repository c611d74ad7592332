"""Functions with a cache: what they give under our eyes is in the graph, and nothing of it stays behind."""

from functools import cache, lru_cache, wraps

import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture.memoised import fresh_caches, memoised


@lru_cache(maxsize=8)
def positions(length, device):
    return torch.arange(length, device=device) / length


def wrapped(function):
    remembering = cache(function)

    @wraps(function)
    def call(*args):
        return remembering(*args)

    return call


@wrapped
def shifted(length, device):
    return positions(length, device) + 1


class Cached(nn.Module):
    """Asks for the same table in both modes, which capture traces apart, and reads its length from the input."""

    table = staticmethod(positions)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.drop = nn.Linear(4, 8), nn.Linear(8, 2), nn.Dropout(0.1)

    def find(self, x):
        return positions(x.shape[1], x.device)

    def forward(self, x):
        table = self.find(x)
        if self.training:
            table = table * 2
        return self.b(self.drop(self.a(x).relu() * table[:, None]))


class CachedInside(Cached):
    def find(self, x):
        return shifted(x.shape[1], x.device)


class CachedByStaticMethod(Cached):
    @staticmethod
    @wrapped
    def own(length, device):
        return torch.arange(length, device=device) / length

    def find(self, x):
        return self.own(x.shape[1], x.device)


class CachedByClassMethod(CachedByStaticMethod):
    @classmethod
    @wrapped
    def own(cls, length, device):
        return torch.arange(length, device=device) / length


@pytest.mark.parametrize("kind", [Cached, CachedInside, CachedByStaticMethod, CachedByClassMethod])
@pytest.mark.parametrize("form", ["graph", "module"])
def test_a_cache_is_neither_found_nor_left(kind, form):
    model, x = kind(), torch.randn(2, 5, 4)
    positions.cache_clear()
    expected = model.eval()(x)
    small = fxprune.compress(model, x, channels=0.5, form=form)
    done = fxprune.record(small)
    assert {mode for mode, _ in done.verification.runs} == {"eval", "train"} or form == "module"
    assert positions.cache_info().currsize == 0
    assert torch.equal(model(x), expected) and not positions(5, x.device).is_inference()
    assert small(torch.randn(3, 7, 4)).shape == (3, 7, 2)  # the table of another length
    model.train()(x).sum().backward()


def test_caches_are_found_by_name_behind_wrappers_and_on_classes():
    assert memoised(Cached) == (positions,)
    assert [f.__wrapped__.__name__ for f in memoised(CachedInside)].count("shifted") == 1
    assert memoised(nn.Linear) == ()


def test_a_cache_is_emptied_whatever_is_raised():
    positions(3, "cpu")
    with pytest.raises(ZeroDivisionError), fresh_caches(Cached()):
        assert positions.cache_info().currsize == 0
        positions(4, "cpu")
        raise ZeroDivisionError
    assert positions.cache_info().currsize == 0
