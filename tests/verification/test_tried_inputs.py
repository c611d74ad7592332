"""Which inputs are tried: random ones, and where the original does not take them the user's own example."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture.dynamic_sizes import Axis
from fxprune.capture.example import describe
from fxprune.verification.tried_inputs import candidates, given_size, other_sizes


class Bags(nn.Module):
    """Offsets begin with zero, or the original refuses."""

    def __init__(self):
        super().__init__()
        self.bags, self.a, self.b = nn.EmbeddingBag(20, 16), nn.Linear(16, 8), nn.Linear(8, 2)

    def forward(self, ids, offsets):
        return self.b(self.a(self.bags(ids, offsets)).relu())


class Columns(nn.Module):
    """Real-valued input whose first columns are numbers of rows in a table."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(4 + k, 6) for k in range(3)])
        self.a, self.b = nn.Linear(20, 16), nn.Linear(16, 1)

    def forward(self, x):
        rows = [table(x[:, k].long()) for k, table in enumerate(self.tables)]
        return self.b(self.a(torch.cat([*rows, x[:, 3:]], 1)).relu())


class Packed(nn.Module):
    """Lengths that must not grow along the batch."""

    def __init__(self):
        super().__init__()
        self.a, self.rnn, self.b = nn.Linear(8, 16), nn.LSTM(16, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.a(x).relu(), lengths, batch_first=True)
        return self.b(nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class Propagation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x, adjacency):
        return adjacency @ self.b((adjacency @ self.a(x)).relu())


def compressed(model, *example):
    torch.manual_seed(0)
    small = fxprune.compress(model.eval(), example, channels=0.5)
    count = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
    assert count < 0.7
    return fxprune.record(small).verification


@pytest.mark.parametrize(("make", "example", "said"), [
    (Columns, (torch.cat([torch.randint(1, 4, (4, 3)).float(), torch.rand(4, 2)], 1),), "index out of range"),
    (Packed, (torch.randn(3, 7, 8), torch.tensor([7, 5, 3])), "lengths"),
])
def test_inputs_that_the_original_does_not_take_give_way_to_the_example(make, example, said):
    proof = compressed(make(), *example)
    (note, *_) = [note for note in proof.notes if "example itself" in note]
    assert "the original does not run in" in note and said in note
    assert {mode for mode, _ in proof.runs} == set(proof.claimed) and proof.nodes > 2 and proof.max_error < 1e-12
    assert proof.ok


def test_a_size_that_random_inputs_fit_is_found():
    proof = compressed(Bags(), torch.randint(0, 20, (9,)), torch.tensor([0, 2, 5]))
    ids, offsets = proof.dimensions
    assert ids.free and offsets.free and {mode for mode, _ in proof.runs} == {"eval", "train"}


def test_both_dimensions_of_an_adjacency_matrix_grow():
    proof = compressed(Propagation(), torch.randn(9, 6), torch.rand(9, 9))
    assert proof.runs == (("eval", 9), ("train", 10)) and not proof.notes


def test_what_no_input_shows_is_refused():
    model = Bags().eval()
    example = (torch.randint(0, 20, (9,)), torch.tensor([0, 2, 5]))
    plan = fxprune.plan(fxprune.analyze(model, example), model, channels=0.5)
    small = fxprune.apply(model, plan, verify=False)
    relu = next(n for n in small.graph.nodes if n.name == "relu")
    relu.target = "sigmoid"
    small.recompile()
    with pytest.raises(fxprune.VerificationError):
        fxprune.verify(model, small, plan)


def test_an_example_is_changed_by_noise_where_it_is_real_valued():
    own = ((torch.ones(3, 4), torch.arange(3)), {})
    first, noisy, itself = candidates(nn.Linear(4, 2), describe(own), own, [given_size()], torch.float64, 0)
    assert not torch.equal(first[0][0][0], noisy[0][0][0]) and first[1] == ""
    assert 0.01 < (noisy[0][0][0] - 1).abs().mean() < 0.2 and noisy[0][0][0].dtype is torch.float64
    assert torch.equal(noisy[0][0][1], own[0][1]) and "with noise" in noisy[1]
    assert torch.equal(itself[0][0][0], own[0][0].double()) and itself[0][0][0] is not own[0][0]


def test_other_sizes_are_tried_from_every_dimension_to_none():
    inputs = describe(((torch.ones(3, 4), torch.ones(3, 3)), {}))
    axes = [Axis(((0, 0), (1, 0)), 3), Axis(((0, 1),), 4)]

    def shapes(axes):
        examples = candidates(nn.Linear(4, 2), inputs, None, other_sizes(inputs, axes), None, 0)
        return [[tuple(t.shape) for t in example[0]] for example, _ in examples]

    assert shapes([]) == [[(4, 4), (4, 3)], [(4, 4), (4, 4)], [(3, 4), (3, 3)]]
    assert shapes(axes) == [[(4, 5), (4, 3)], [(4, 8), (4, 3)], *shapes([])]
