"""What capture's own Python raises is a bug by name, and no trait of the model; what a model raises is the model's."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune import RuleError
from fxprune.capture.capturing import capture
from fxprune.capture.observer import Observer
from fxprune.capture.tracer import Tracer
from fxprune.capture.watch import Watcher
from fxprune.rules.bugs import raise_bugs

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, between=lambda x: x):
        super().__init__()
        self.a, self.b, self.between = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


@pytest.fixture
def broken(monkeypatch):
    """A table of capture's own that lacks an entry, where tensors are on the meta device."""
    write = Observer._write

    def failing(self, *args):
        if not self.real:
            namespace = {"__name__": "broken"}
            exec(compile("def lookup(): return {}['entry']", Tracer.trace.__code__.co_filename, "exec"), namespace)
            namespace["lookup"]()
        return write(self, *args)

    monkeypatch.setattr(Observer, "_write", failing)


@pytest.mark.usefixtures("broken")
def test_an_error_of_capture_is_an_error_by_name_here():
    with pytest.raises(RuleError, match=r"a bug: capture raised KeyError: 'entry' \(at tracer.py:1\); please report"):
        fxprune.analyze(Net(), EXAMPLE)


@pytest.mark.usefixtures("broken")
def test_elsewhere_true_tensors_serve_and_the_report_calls_it_a_bug():
    before = raise_bugs(False)
    try:
        coupling = fxprune.analyze(Net(), EXAMPLE)
    finally:
        raise_bugs(before)
    (bug,) = coupling.bugs
    assert coupling.mode == "graph" and bug.startswith("a bug: capture raised KeyError: 'entry'")
    assert bug in coupling.report("md") and list(coupling.prunable) == ["a"]


class Chooses(nn.Module):
    """What it runs hangs on values, so that it can only be watched."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.a(x)
        return self.b(hidden if hidden.sum() > 0 else -hidden)


def test_an_error_of_capture_is_an_error_by_name_where_a_model_is_watched(monkeypatch):
    namespace = {"__name__": "broken"}
    exec(compile("def lookup(self): return {}['entry']", Tracer.trace.__code__.co_filename, "exec"), namespace)
    monkeypatch.setattr(Watcher, "__enter__", namespace["lookup"])
    with pytest.raises(RuleError, match="a bug: capture raised KeyError: 'entry'"):
        fxprune.analyze(Chooses(), torch.randn(2, 4))


def raises(error):
    def between(x):
        if x.is_meta:
            raise error
        return x

    return between


@pytest.mark.parametrize("between", [
    raises(KeyError("of the model")), raises(AttributeError("of the model")),
    lambda x: x.sum(7), lambda x: x.view(torch.Size([3, 3])), lambda x: x.reshape("rows"), lambda x: x[9, 9, 9, 9, 9],
], ids=["KeyError", "AttributeError", "no such dimension", "no such shape", "no such argument", "too many indices"])
def test_what_a_model_raises_is_the_models(between):
    try:
        captured = capture(Net(between), EXAMPLE)
    except fxprune.CaptureError as error:
        assert "forward raised" in str(error)
    else:
        assert captured.bugs == ()
