"""Garbage collection is the user's: nobody switches it, and what a pass copies goes without it."""

import gc
import weakref

import pytest
import torch
from torch import nn

import fxprune


class Layer(nn.Linear):
    """Counts its living instances, copies included."""

    living = weakref.WeakSet()

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.living.add(self)

    def __setstate__(self, state):
        super().__setstate__(state)
        self.living.add(self)


class Net(nn.Module):
    def __init__(self, other=False):
        super().__init__()
        self.a, self.b, self.c, self.other = Layer(4, 8), Layer(8, 8), Layer(8, 2), other

    def forward(self, x):
        y = self.b(self.a(x).relu())
        if self.training and self.other:
            y = y + 1
        return self.c(y.relu())


@pytest.fixture
def no_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("other", [False, True], ids=["one graph", "two graphs"])
def test_an_analysis_leaves_no_copy_of_the_model_behind(no_collection, other):
    model, x = Net(other), torch.randn(3, 4)
    before = set(map(id, Layer.living))
    coupling = fxprune.analyze(model, x)
    assert {id(layer) for layer in Layer.living} == before and coupling.prunable


@pytest.mark.parametrize("function", ["disable", "enable", "freeze", "unfreeze", "set_threshold", "collect"])
def test_it_is_never_switched_frozen_or_called(monkeypatch, function):
    monkeypatch.setattr(gc, function, lambda *args: pytest.fail(f"gc.{function} was called"))
    small = fxprune.compress(Net(True), torch.randn(3, 4), channels=0.5)
    assert fxprune.record(small).verification.ok


@pytest.mark.parametrize("enabled", [True, False])
def test_an_interrupt_leaves_it_as_it_was(enabled):
    class Interrupted(Net):
        def forward(self, x):
            raise KeyboardInterrupt

    gc.enable() if enabled else gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt):
            fxprune.compress(Interrupted(), torch.randn(3, 4), channels=0.5)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
