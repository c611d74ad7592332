"""Layers that a model calls and whose output nobody reads, in its own class."""

import torch
from torch import nn

import fxprune


class Unread(nn.Module):
    """A pooling head whose output nobody reads runs all the same, as that of a vision tower does."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(6, 16), nn.Linear(16, 3)
        self.probe, self.norm = nn.Parameter(torch.randn(1, 1, 16)), nn.LayerNorm(16)
        self.attention, self.pool = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 8)

    def forward(self, x, pooled=False):
        x = self.into(x)
        y = self.norm(self.attention(self.probe.repeat(len(x), 1, 1), x, x)[0])
        y = self.pool(y.relu())
        return y if pooled else self.out(x)


def test_layers_whose_output_is_not_read_fit_all_the_same():
    torch.manual_seed(0)
    model, x = Unread().eval(), torch.randn(2, 5, 6)
    small = fxprune.compress(model, x, channels=0.5, form="module")
    record = fxprune.record(small)
    assert small.into.out_features == small.pool.in_features == small.attention.embed_dim == 8
    assert record.verification.ok and "other callers may read it" in str(record.coupling.groups["pool"].frozen)
    assert small(x, pooled=True).shape == (2, 1, 8)
    graph = fxprune.apply(model, record.plan)  # which computes nothing of the sort
    assert torch.allclose(graph(x), small(x), atol=1e-6) and "pool.weight" not in graph.state_dict()


class Grouped(Unread):
    """What a norm of groups remembers its weight does not say: what arrives there stays."""

    def __init__(self):
        super().__init__()
        self.groups = nn.GroupNorm(4, 16)

    def forward(self, x):
        x = self.into(x)
        self.groups(x.transpose(1, 2))
        return self.out(x)


def test_a_layer_without_a_reader_whose_sizes_cannot_be_told_holds_what_arrives():
    coupling = fxprune.analyze(Grouped().eval(), torch.randn(2, 5, 6), form="module")
    assert "its weight does not say what it remembers of its sizes" in str(coupling.groups["into"].frozen)
