"""Which groups may be given a new order: those whose channels lie alike in every tensor, copy by copy."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.coupling.permutable import permutable


class Flattened(nn.Module):
    """Four channels at two positions each, flattened: 0 0 1 1 2 2 3 3, and moved in that form."""

    def __init__(self, move):
        super().__init__()
        self.a, self.b, self.move = nn.Conv1d(3, 4, 1), nn.Linear(8, 2), move

    def forward(self, x):
        return self.b(self.move(self.a(x).flatten(1)))


def groups(move):
    return permutable(fxprune.analyze(Flattened(move), torch.randn(2, 3, 2)))


@pytest.mark.parametrize("move", [lambda y: y, lambda y: y.flip(1), lambda y: y.roll(2, 1),
                                  lambda y: y[:, [1, 0, 3, 2, 5, 4, 7, 6]], lambda y: y[:, [0, 2, 1, 3, 4, 5, 6, 7]]],
                         ids=["nothing", "flip", "whole channels", "the copies of all", "copies in between others"])
def test_channels_that_move_alike(move):
    assert groups(move) == {"a"}


@pytest.mark.parametrize("move", [lambda y: y[:, [1, 0, 2, 3, 4, 5, 6, 7]], lambda y: y.roll(1, 1)],
                         ids=["the copies of one channel", "a roll across channels"])
def test_copies_that_were_moved_unlike_others_hold_their_group(move):
    assert groups(move) == set()
