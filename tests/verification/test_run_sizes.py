"""Both sides run on small inputs, at two lengths of every dimension that the model takes at another one."""

import operator

import pytest
import torch
from torch import nn

import fxprune
from fxprune import VerificationError


def proven(model, *example):
    torch.manual_seed(0)
    return fxprune.record(fxprune.compress(model, example, channels=0.5)).verification


def net(*last):
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *last)


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(50, 16), nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, ids, mask):
        return self.b(self.a(self.embed(ids)).relu() * mask.unsqueeze(-1))


class Square(nn.Module):
    """Takes images as high as they are wide."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.a(x)
        return self.b(y + y.transpose(2, 3))


def test_an_image_is_cut_and_its_sides_change_places():
    proof = proven(net(nn.Conv2d(8, 4, 3)), torch.randn(1, 3, 224, 224))
    assert proof.shapes == (((1, 3, 64, 32),), ((2, 3, 32, 64),)) and proof.runs == (("eval", 1), ("train", 2))


def test_a_large_batch_is_cut_and_tokens_are():
    proof = proven(Sequence(), torch.randint(0, 50, (16, 100)), torch.ones(16, 100))
    assert proof.shapes == (((2, 68), (2, 68)), ((3, 36), (3, 36)))


def test_a_small_image_is_run_at_a_second_size_as_well():
    proof = proven(net(nn.Conv2d(8, 4, 3)), torch.randn(2, 3, 16, 16))
    assert proof.shapes == (((2, 3, 16, 16),), ((3, 3, 20, 20),))


def test_where_small_is_too_small_the_next_larger_size_is_taken():
    proof = proven(net(nn.AvgPool2d(40), nn.Conv2d(8, 4, 1)), torch.randn(1, 3, 128, 128))
    assert proof.shapes == (((1, 3, 64, 64),), ((2, 3, 96, 96),)) and proof.notes == ()


def test_where_sides_must_be_alike_they_are():
    proof = proven(Square(), torch.randn(1, 3, 128, 128))
    assert proof.shapes == (((1, 3, 64, 64),), ((2, 3, 96, 96),))


def test_where_only_the_given_size_runs_it_is_taken():
    proof = proven(net(nn.Flatten(), nn.Linear(8 * 40 * 40, 4)), torch.randn(1, 3, 40, 40))
    assert proof.shapes == (((1, 3, 40, 40),), ((2, 3, 40, 40),)) and proof.ok


class Flat(nn.Module):
    """Flattens positions, and asks for their number."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv1d(8, 4, 1)

    def forward(self, x):
        y = self.a(x)
        return self.b(y.reshape(y.shape[0], y.shape[1], y.shape[2] * y.shape[3]))


@pytest.mark.parametrize("size", [16, 128])
def test_a_result_that_is_wrong_at_other_sizes_only_is_refused(size):
    torch.manual_seed(0)
    model, x = Flat(), torch.randn(1, 3, size, size)
    small = fxprune.compress(model, x, channels=0.5)
    plan = fxprune.record(small).plan
    product = next(node for node in small.graph.nodes if node.target is operator.mul)
    product.replace_all_uses_with(size * size)
    small.recompile()
    assert small(x).shape == (1, 4, size * size)
    with pytest.raises(VerificationError, match="must run where the original does"):
        fxprune.verify(model, small, plan)


def test_sizes_are_in_the_record():
    assert "1" in str(proven(net(nn.Conv2d(8, 4, 3)), torch.randn(1, 3, 224, 224)))
