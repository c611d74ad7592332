"""What the model's own Python holds: two dimensions in step where that serves, and no more than must be."""

import math

import pytest
import torch
from torch import nn

import fxprune


class Pyramid(nn.Module):
    """Attention of pyramid transformers: keys and values of one projection, and heads joined to ``C`` channels again,
    so that with a head as many channels of the model go. Two heads: of some layers a trial's share would be both."""

    def __init__(self, layers=4, heads=2, size=4):
        super().__init__()
        self.heads, self.size, width = heads, size, heads * size
        self.stem = nn.Sequential(nn.Linear(6, 8), *(nn.Linear(8, 8) for _ in range(3)))
        self.into, self.head = nn.Linear(8, width), nn.Linear(width, 3)
        self.q, self.kv, self.out = (nn.ModuleList(nn.Linear(width, n * width) for _ in range(layers))
                                     for n in (1, 2, 1))

    def forward(self, x):
        B, N, _ = x.shape
        x = self.into(self.stem(x))
        C = x.shape[-1]
        for q, kv, out in zip(self.q, self.kv, self.out, strict=True):
            query = q(x).reshape(B, N, self.heads, -1).transpose(1, 2)
            key, value = kv(x).reshape(B, -1, 2, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
            y = nn.functional.scaled_dot_product_attention(query, key, value)
            x = x + out(y.transpose(1, 2).reshape(B, N, C))
        return self.head(x)


def test_heads_that_are_joined_to_the_channels_of_the_input_go_in_step():
    torch.manual_seed(0)
    model, x = Pyramid().eval(), torch.randn(2, 5, 6)
    coupling = fxprune.analyze(model, x, form="module")
    assert list(coupling.prunable) == ["stem.0", "stem.1", "stem.2", "stem.3", "into"]
    plan = fxprune.Plan.from_widths(coupling, model, {"into": 1})
    small = fxprune.apply(model, plan, form="module")
    assert small.heads == 1 and small.size == 4 and small.into.out_features == 4
    assert [kv.weight.shape for kv in small.kv] == [(8, 4)] * 4


class Windows(nn.Module):
    """Attention of windowed transformers: a head is as wide as the stream over the number of heads, and what they give
    is joined as it comes."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.heads, self.into, self.head = heads, nn.Linear(6, width), nn.Linear(width, 3)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        x = self.into(x)
        B, N, C = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(x + self.proj(y.transpose(1, 2).reshape(B, N, -1)))


def test_heads_that_are_as_wide_as_the_stream_says_go_in_step_with_it():
    torch.manual_seed(0)
    small = fxprune.compress(Windows().eval(), torch.randn(2, 5, 6), channels=0.5, form="module")
    assert (small.into.out_features, small.qkv.out_features, small.proj.in_features, small.heads) == (6, 18, 6, 3)
    assert fxprune.record(small).verification.ok


class Rooted(Pyramid):
    """Scores are divided by what other code than Python's makes of a length."""

    def forward(self, x):
        x = self.into(self.stem(x))
        for q, kv, out in zip(self.q, self.kv, self.out, strict=True):
            key, value = kv(x).chunk(2, -1)
            x = x + out((q(x) @ key.transpose(-2, -1) / math.sqrt(key.size(-1))).softmax(-1) @ value)
        return self.head(x)


def test_a_root_of_a_length_holds_what_it_is_the_length_of():
    torch.manual_seed(0)
    small = fxprune.compress(Rooted(layers=1).eval(), torch.randn(2, 5, 6), channels=0.5, form="module")
    groups = fxprune.record(small).coupling.groups
    assert "would have to be 2.82842" in str(groups["kv.0"].frozen) and groups["into"].frozen is None
    assert small.into.out_features == 4 and small.q[0].out_features == 8 and fxprune.record(small).verification.ok


class Lambda(nn.Module):
    """A dimension of length 1 that the model's Python has added goes again: the same call, whatever shrinks."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return self.out((a.unsqueeze(-2) @ (a.unsqueeze(-1) * b.unsqueeze(-2))).squeeze(-2))


def test_a_call_that_would_be_the_same_stays_as_the_model_writes_it():
    torch.manual_seed(0)
    model, x = Lambda().eval(), torch.randn(2, 5, 6)
    coupling = fxprune.analyze(model, x, form="module")
    assert list(coupling.prunable) == ["a", "b"] and coupling.groups["a"].size == coupling.groups["b"].size == 8
    # Of a single channel more would be squeezed than the original squeezes: Python's call says which dimension.
    small = fxprune.apply(model, fxprune.Plan.from_widths(coupling, model, {"a": 1, "b": 1}), form="module")
    assert small(x).shape == (2, 5, 3)


class Loops(nn.Module):
    """Data decides how many edges there are; with other edges there are others, and channels go all the same."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x, edges):
        source, target = edges[:, edges[0] != edges[1]]
        y = self.into(x)
        return self.out(torch.zeros_like(y).index_add(0, target, y[source]).relu())


def test_lengths_that_data_decides_on_hold_nothing():
    torch.manual_seed(0)
    model, edges = Loops().eval(), torch.tensor([[0, 1, 2, 2, 3, 4], [0, 2, 2, 1, 3, 0]])
    inputs = (torch.randn(5, 6), edges)
    small = fxprune.compress(model, inputs, channels=0.5, form="module")
    assert small.into.out_features == 4 and fxprune.record(small).verification.ok
    assert small(*inputs).shape == (5, 3)


class Nested(Pyramid):
    """Its heads are joined last: with a head go the channels h, h + heads, h + 2 * heads ... of the model, and
    ``C // heads`` says how many in all, not which."""

    def forward(self, x):
        x = self.into(self.stem(x))
        B, N, C = x.shape
        for q, kv, out in zip(self.q, self.kv, self.out, strict=True):
            query = q(x).reshape(B, N, self.heads, C // self.heads).transpose(1, 2)
            key, value = kv(x).reshape(B, N, 2, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            y = nn.functional.scaled_dot_product_attention(query, key, value)
            x = x + out(y.permute(0, 2, 3, 1).reshape(B, N, C))
        return self.head(x)


def test_which_channels_go_with_a_head_is_said_where_they_are_joined():
    torch.manual_seed(0)
    model, x = Nested(2, 4, 5).eval(), torch.randn(2, 5, 6)
    coupling = fxprune.analyze(model, x, form="module")
    assert coupling.groups["into"].size == 4 and coupling.groups["into"].frozen is None
    plan = fxprune.Plan.from_widths(coupling, model, {"into": 3})
    (gone,) = set(range(4)) - set(plan.channels["into"])
    assert set(range(20)) - set(plan.keep["into.weight"][0]) == {*range(gone, 20, 4)}
    assert fxprune.apply(model, plan, form="module").heads == 3


class Tiled(nn.Module):
    """Positions in windows, as many as there are; of the channels nothing is repeated."""

    def __init__(self, named):
        super().__init__()
        self.named = named
        self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.window = nn.Parameter(torch.randn(8, 2))

    def forward(self, x):
        y = self.into(x).transpose(1, 2)
        times = (y.shape[-1] // 2,)
        window = torch.tile(self.window, dims=times) if self.named else self.window.tile(times)
        return self.out((y + window).transpose(1, 2))


@pytest.mark.parametrize("named", [True, False])
def test_repetitions_that_are_left_out_stay_so(named):
    torch.manual_seed(0)
    small = fxprune.compress(Tiled(named).eval(), torch.randn(2, 4, 6), channels=0.5, form="module")
    assert small.window.shape == (4, 2) and small(torch.randn(3, 6, 6)).shape == (3, 6, 3)


class Cut(nn.Module):
    """Queries, keys and values of each head lie in one row, which ``chunk`` cuts into thirds; and the scale is a root
    of what the module says a head is wide, on scores that are as wide as there are tokens."""

    def __init__(self):
        super().__init__()
        self.heads, self.size = 4, 8
        self.qkv, self.out = nn.Linear(6, 96), nn.Linear(32, 3)

    def forward(self, x):
        qkv = self.qkv(x).view(*x.shape[:2], self.heads, 3 * self.size).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=-1)
        y = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.size), -1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def test_heads_go_where_no_part_of_one_can():
    """First the size of values is held, with that of queries and keys; then whole heads go."""
    torch.manual_seed(0)
    model, x = Cut().eval(), torch.randn(2, 5, 6)
    coupling = fxprune.analyze(model, x, form="module")
    assert coupling.groups["qkv"].size == 4 and coupling.groups["qkv"].frozen is None
    small = fxprune.compress(model, x, channels=0.5, form="module")
    assert (small.heads, small.size, small.qkv.out_features) == (2, 8, 48)


class Separate(Cut):
    def __init__(self):
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(6, 32) for _ in range(3))

    def forward(self, x):
        q, k, v = (layer(x).view(*x.shape[:2], -1, self.size).transpose(1, 2) for layer in self.qkv)
        scores = q @ k.transpose(-1, -2)
        return self.out((torch.softmax(scores / math.sqrt(self.size), -1) @ v).transpose(1, 2).flatten(2))


def test_an_attribute_that_a_value_is_computed_from_keeps_its_number():
    torch.manual_seed(0)
    small = fxprune.compress(Separate().eval(), torch.randn(2, 5, 6), channels=0.5, form="module")
    assert small.size == 8 and [layer.out_features for layer in small.qkv] == [16] * 3


class Interleaved(nn.Module):
    """Gates and values side by side, as mixtures of experts have them; and a product that takes whole blocks only."""

    def __init__(self):
        super().__init__()
        self.both, self.out = nn.Linear(6, 64), nn.Linear(32, 3)

    def forward(self, x):
        both = self.both(x)
        y = both[..., ::2].sigmoid() * both[..., 1::2]
        if y.shape[-1] % 8:
            raise ValueError("rows must be multiples of 16 bytes")
        return self.out(y)


def test_pairs_go_together_and_a_width_that_an_operator_refuses_holds_no_other():
    torch.manual_seed(0)
    model, x = Interleaved().eval(), torch.randn(2, 6)
    coupling = fxprune.analyze(model, x, form="module")
    assert coupling.groups["both"].size == 32 and coupling.groups["both"].frozen is None
    small = fxprune.compress(model, x, channels=0.5, form="module")
    assert (small.both.out_features, small.out.in_features) == (32, 16)
    with pytest.raises(fxprune.errors.FormError, match="rows must be multiples of 16 bytes"):
        fxprune.compress(model, x, widths={"both": 15}, form="module")


class Refusing(Interleaved):
    def forward(self, x):
        y = self.both(x)
        if y.shape[-1] != 64:
            raise ValueError("64, and no other")
        return self.out(y[..., ::2].sigmoid() * y[..., 1::2])


def test_a_copy_that_raises_at_any_width_says_so():
    coupling = fxprune.analyze(Refusing().eval(), torch.randn(2, 6), form="module")
    assert "the smaller copy raises ValueError: 64, and no other" in str(coupling.groups["both"].frozen)
