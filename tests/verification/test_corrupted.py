"""Verification can fail: each way of corrupting a finished compression is caught."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune import VerificationError


class Net(nn.Module):
    """A convolution with groups, attention by hand and by operator, and a size that is used as a value."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.tokens = nn.Linear(16, 24)
        self.q, self.k, self.v = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        x = self.grouped(F.relu(self.norm(self.stem(x))))
        x = self.tokens(x.flatten(2).transpose(1, 2))
        heads = [layer(x).unflatten(-1, (3, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v)]
        x = F.scaled_dot_product_attention(*heads)
        x = x * x.shape[-1] ** -0.5
        return self.head(x.transpose(1, 2).flatten(2).mean(1))


@pytest.fixture(scope="module")
def compressed():
    torch.manual_seed(0)
    model = Net().eval()
    small = fxprune.compress(model, torch.randn(2, 3, 6, 6), channels=0.5)
    return model, small, fxprune.record(small).plan


def node(small, words):
    return next(n for n in small.graph.nodes if words in str(n.target))


def one_index_off(small):
    weight = small.stem.weight
    weight.data[0] = weight.data[0] + torch.randn_like(weight.data[0])


def two_channels_swapped(small):
    small.grouped.weight.data = small.grouped.weight.data[[1, 0, *range(2, len(small.grouped.weight))]]


def two_features_swapped_in_the_graph(small):
    flat = next(n for n in small.graph.nodes if n.target == "flatten" and "grouped" in str(n.args[0]))
    with small.graph.inserting_after(flat):
        flipped = small.graph.call_method("flip", (flat, 1))
    flat.replace_all_uses_with(flipped, delete_user_cb=lambda user: user is not flipped)
    small.recompile()


def a_stale_head_count(small):
    for n in small.graph.nodes:
        if n.target == "unflatten" and n.args[2][0] == 3:
            n.args = (n.args[0], n.args[1], (n.args[2][1], 3)) if n.args[2][1] != 3 else (n.args[0], -1, (1, 9))
    small.recompile()


def a_wrong_scale(small):
    attention = node(small, "scaled_dot_product")
    attention.kwargs = {**attention.kwargs, "scale": attention.kwargs["scale"] * 1.01}
    small.recompile()


def a_default_scale(small):
    attention = node(small, "scaled_dot_product")
    attention.kwargs = {key: value for key, value in attention.kwargs.items() if key != "scale"}
    small.recompile()


def wrong_groups(small):
    small.grouped.groups = 2
    small.grouped.weight = nn.Parameter(small.grouped.weight.data.repeat(1, 2, 1, 1))


def a_shrunken_size_as_a_value(small):
    scaled = next(n for n in small.graph.nodes if n.target == "mul")
    scaled.args = (scaled.args[0], 4 ** -0.5)
    small.recompile()


def a_call_that_only_an_interpreter_can_make(small):
    """The code of a graph names its functions, and this one is not where it says."""
    def nowhere(x):
        return x

    nowhere.__module__ = "torch._tensor"
    head = next(n for n in small.graph.nodes if n.target == "head")
    with small.graph.inserting_before(head):
        head.args = (small.graph.call_function(nowhere, head.args),)
    small.recompile()


@pytest.mark.parametrize("corrupt", [a_call_that_only_an_interpreter_can_make, one_index_off, two_channels_swapped,
                                     two_features_swapped_in_the_graph,
                                     a_stale_head_count, a_wrong_scale, a_default_scale, wrong_groups,
                                     a_shrunken_size_as_a_value], ids=lambda f: f.__name__)
def test_caught(compressed, corrupt):
    model, small, plan = compressed
    damaged = copy.deepcopy(small)
    assert fxprune.verify(model, damaged, plan).ok
    corrupt(damaged)
    with pytest.raises(VerificationError):
        fxprune.verify(model, damaged, plan)


def test_a_wrong_rule_is_caught_by_compress(monkeypatch):
    """A rule that says "elementwise" of a flip prunes silently wrong everywhere else; here it raises."""
    from fxprune.rules.registry import RULES, Rule

    monkeypatch.setitem(RULES, "aten::flip", Rule(lambda op, x, dims: op.pointwise(x)))

    class Flipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.b(self.a(x).flip(1))

    with pytest.raises(VerificationError, match="flip"):
        fxprune.compress(Flipped(), torch.randn(2, 3, 4, 4), channels=0.5)
