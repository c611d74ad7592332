"""Regions without gradients and of mixed precision end with the call, whatever is raised."""

import copy
import pickle

import pytest
import torch
from torch import nn

import fxprune


class Regions(nn.Module):
    """Both kinds, one in the other, and a layer that refuses other widths inside."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x, shift):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.b(self.a(x).relu()) + shift
        return self.c(y.float())


def modes():
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")


@pytest.mark.parametrize("how", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
                         ids=["as it is", "copied", "unpickled"])
def test_modes_are_restored_whatever_is_raised(how):
    example = (torch.randn(2, 4), torch.randn(2, 8))
    small = how(fxprune.compress(Regions(), example, channels=0.5, verify=False))
    before = modes()
    for method in (small, small.forward):
        assert method(*example).shape == (2, 2) and modes() == before
        with pytest.raises(RuntimeError):
            method(torch.randn(2, 5), example[1])
        assert modes() == before
        with pytest.raises(RuntimeError):
            method(example[0], torch.randn(3, 7))
        assert modes() == before
        with torch.no_grad(), pytest.raises(RuntimeError):
            method(example[0], torch.randn(3, 7))
        assert modes() == before
    assert small(*example).requires_grad
