"""Objects with tensors inside that a model returns."""

import copy
import pickle

import pytest
import torch
from torch import nn

import fxprune


class Layer:
    def __init__(self):
        self.keys, self.length, self.kind = None, 0, torch.float32

    def update(self, keys):
        self.keys, self.length, self.device = keys, self.length + keys.shape[1], keys.device
        return keys


class Cache:
    """Layers of tensors and numbers, one of them in two places."""

    def __init__(self, count):
        self.layers = [Layer() for _ in range(count)]
        self.last, self.by_name = self.layers[-1], {"first": self.layers[0]}


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.key = nn.Linear(6, 8), nn.Linear(8, 4)
        self.inner, self.head = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x, flag=True):
        cache, x = Cache(2), self.embed(x)
        keys = [layer.update(self.key(x)) for layer in cache.layers]
        x = torch.softmax(keys[0] @ keys[1].transpose(1, 2), -1) @ x
        return {"logits": self.head(self.inner(x).relu()), "cache": cache}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Attending().eval()


def test_a_returned_cache_is_put_together_again(model):
    x = torch.randn(2, 5, 6)
    small = fxprune.compress(model, x, channels=0.5)
    coupling = fxprune.record(small).coupling
    assert coupling.mode == "graph" and "model output" in str(coupling.groups["key"].frozen)
    assert coupling.groups["embed"].frozen is None and coupling.groups["inner"].frozen is None
    for module in (small, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        cache = module(torch.randn(3, 7, 6))["cache"]
        assert isinstance(cache, Cache) and cache.layers[0].keys.shape == (3, 7, 4)
        assert cache.last is cache.layers[1] and cache.by_name["first"] is cache.layers[0]
        assert cache.last.length == 7 and cache.last.kind is torch.float32


def test_each_call_gives_an_object_of_its_own(model):
    small = fxprune.compress(model, torch.randn(2, 5, 6), channels=0.5)
    first, second = (small(torch.randn(1, 4, 6))["cache"] for _ in range(2))
    assert first is not second and first.layers[0] is not second.layers[0]
    assert not torch.equal(first.last.keys, second.last.keys)


def test_both_modes_share_one_graph(model):
    assert not hasattr(fxprune.compress(model, torch.randn(2, 5, 6), channels=0.5), "trained")


class Distribution(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.mean = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return torch.distributions.Normal(self.mean(self.hidden(x).relu()), torch.ones(3), validate_args=False)


def test_a_distribution():
    small = fxprune.compress(Distribution(), torch.randn(2, 6), channels=0.5)
    assert small(torch.randn(4, 6)).mean.shape == (4, 3)
    assert fxprune.record(small).mode == "graph"
