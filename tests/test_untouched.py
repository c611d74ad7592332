"""The user's model is bit-identical after success and after every failure: weights, modes, hooks, attributes, random
generators, and the example inputs as well."""

import copy
import random

import numpy as np
import pytest
import reference
import torch
from torch import nn

import fxprune


class Net(nn.Module):
    """Hooks, a cache, a counter, a frozen part, state that training writes, dropout, and a weight under two names."""

    def __init__(self, fails: str = ""):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Dropout(0.2), nn.ReLU(inplace=True))
        self.again, self.head = self.body[0], nn.Conv2d(8, 2, 1)
        self.register_buffer("average", torch.zeros(8), persistent=False)
        self.cache, self.calls, self.fails, self.last = {}, 0, fails, None
        self.norm.eval()
        self.stem.weight.requires_grad_(False)
        self.body.register_forward_hook(lambda module, args, output: output + 1)

    def forward(self, x):
        self.calls += 1
        self.cache.setdefault(tuple(x.shape), torch.ones_like(x[:, :1]))
        y = self.norm(self.stem(x)) * self.cache[tuple(x.shape)]
        self.average = 0.5 * self.average + 0.5 * y.detach().mean((0, 2, 3))
        self.last = y = self.again(self.body(y)) + y
        if self.fails == "raises":
            raise RuntimeError("no")
        if self.fails == "reads":
            y = y * float(y.detach().sum() > 0)
        return self.head(y)


def example():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


def untouched(model, call, raises=None):
    """Call, and look at everything before and after."""
    np.random.seed(1)
    random.seed(1)
    before = reference.fingerprint(model)
    cached = copy.copy(model.cache)
    if raises is None:
        out = call()
    else:
        with pytest.raises(raises):
            call()
        out = None
    reference.assert_untouched(before, model)
    assert model.cache == cached
    return out


def test_success_leaves_the_model_as_it_was(model):
    x = example()
    kept = x.clone()
    coupling = untouched(model, lambda: fxprune.analyze(model, x))
    plan = untouched(model, lambda: fxprune.plan(coupling, model, channels=0.5))
    small = untouched(model, lambda: fxprune.apply(model, plan))
    untouched(model, lambda: fxprune.verify(model, small, plan))
    untouched(model, lambda: fxprune.compress(model, x, channels=0.5))
    untouched(model, lambda: coupling.report() and coupling.graph)
    assert torch.equal(x, kept)


def test_inference_of_inputs_and_running_the_result_leave_it_alone(model):
    small = untouched(model, lambda: fxprune.compress(model, channels=0.6))
    small.train()
    x = example()
    before = {name: tensor.clone() for name, tensor in reference.tensors(model)}
    optimizer = torch.optim.SGD([p for p in small.parameters() if p.requires_grad], 0.1)
    small(x).sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in reference.tensors(model))


FAILURES = {
    "a budget out of range": lambda model: fxprune.compress(model, example(), macs=2.0),
    "an unknown criterion": lambda model: fxprune.compress(model, example(), criterion="l3"),
    "inputs of a wrong shape": lambda model: fxprune.compress(model, example().repeat(1, 2, 1, 1)[:, :4]),
    "inputs of a wrong dtype": lambda model: fxprune.compress(model, example().double()),
    "no inputs at all": lambda model: fxprune.compress(model, ()),
    "an unknown layer": lambda model: fxprune.compress(model, example(), ignore=("steem",)),
}


class Keeping(nn.Module):
    """Caches what it computed, graph and all, in a part whose class has copying of its own."""

    class Part(nn.Linear):
        def __getstate__(self):
            return vars(self).copy()

        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    def __init__(self):
        super().__init__()
        self.part, self.head = self.Part(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.part(x).relu())


def test_activations_that_hang_on_their_graph_are_no_obstacle():
    model, x = Keeping(), torch.randn(3, 6)
    model(x)
    last = model.part.last
    small = fxprune.compress(model, x, channels=0.5)
    assert small(x).shape == (3, 2) and model.part.last is last and last.grad_fn is not None


@pytest.mark.parametrize("name", FAILURES)
def test_failures_leave_it_alone(model, name):
    untouched(model, lambda: FAILURES[name](model), fxprune.FxpruneError)


def test_a_model_that_raises_is_left_alone():
    model = Net("raises")
    untouched(model, lambda: fxprune.compress(model, example()), fxprune.FxpruneError)


def test_a_model_that_reads_its_data_is_left_alone():
    model = Net("reads")
    x = example()
    untouched(model, lambda: fxprune.analyze(model, x))


def test_a_plan_for_other_weights_is_refused_and_changes_nothing(model):
    plan = fxprune.plan(fxprune.analyze(model, example()), model, channels=0.5)
    other = Net()
    untouched(other, lambda: fxprune.apply(other, plan), fxprune.PlanError)


def test_weights_that_are_not_finite(model):
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    untouched(model, lambda: fxprune.compress(model, example()), fxprune.FxpruneError)


class WritesItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.cache = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3), {}

    def forward(self, x):
        x += 1
        return self.b(self.a(x) * float(x.sum() < 1e9))


def test_inputs_that_the_model_writes_into_are_copied_first():
    """In module mode too, where the true inputs are run."""
    model, x = WritesItsInput(), example()
    kept = x.clone()
    untouched(model, lambda: fxprune.analyze(model, x))
    assert torch.equal(x, kept)
