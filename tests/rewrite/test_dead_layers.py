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
    assert "no weight of it says what it remembers of its sizes" in str(coupling.groups["into"].frozen)


class Pooled(Unread):
    """The norm in front of a pooling head lies on the stream, as that of CLIP's vision tower does."""

    def forward(self, x, pooled=False):
        x = self.into(x)
        y = self.norm(x[:, 0])
        return self.pool(y) if pooled else self.out(x)


def test_a_norm_that_is_not_read_goes_with_the_stream_that_it_reads():
    torch.manual_seed(0)
    model, x = Pooled().eval(), torch.randn(2, 5, 6)
    small = fxprune.compress(model, x, channels=0.5, form="module")
    assert small.into.out_features == 8 == len(small.norm.weight) == small.norm.normalized_shape[0]
    assert fxprune.record(small).coupling.groups["into"].frozen is None


class Plain(Pooled):
    """A norm without weights remembers its size all the same."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16, elementwise_affine=False)


def test_a_norm_without_weights_that_is_not_read_holds_what_arrives():
    torch.manual_seed(0)
    model, x = Plain().eval(), torch.randn(2, 5, 6)
    coupling = fxprune.analyze(model, x, form="module")
    assert "no weight of it says what it remembers of its sizes" in str(coupling.groups["into"].frozen)
