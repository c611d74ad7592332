"""What benchmarks/ten_tasks.py holds Torch-Pruning's results against: a masked copy, from the values that are left."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.masked_copy import kept_indices, masked_copy


@pytest.fixture
def pair():
    """A net with a norm, and the same without two of its six channels, cut by hand."""
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        whole[1].weight.copy_(1 + torch.arange(6) / 10)
        whole[1].bias.copy_(torch.arange(6) / 20 + 0.01)
    kept = torch.tensor([0, 2, 3, 5])
    small = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 3))
    small.load_state_dict({"0.weight": whole[0].weight[kept], "0.bias": whole[0].bias[kept],
                           "1.weight": whole[1].weight[kept], "1.bias": whole[1].bias[kept],
                           "3.weight": whole[3].weight[:, kept], "3.bias": whole[3].bias})
    return whole, small


def test_indices_are_read_off_the_values(pair):
    whole, small = pair
    rows, columns = kept_indices(whole[3].weight.detach(), small[3].weight.detach())
    assert rows.tolist() == [0, 1, 2] and columns.tolist() == [0, 2, 3, 5]


def test_the_masked_copy_is_what_the_smaller_net_computes(pair):
    whole, small = pair
    x, before = torch.randn(5, 4), copy.deepcopy(whole.state_dict())
    assert torch.allclose(masked_copy(whole, small)(x), small(x), atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())


def test_another_net_is_told_apart(pair):
    whole, small = pair
    x, wrong = torch.randn(5, 4), copy.deepcopy(small)
    with torch.no_grad():
        wrong[3].weight.copy_(wrong[3].weight[:, [1, 0, 2, 3]])  # two consumers changed places
    assert not torch.allclose(masked_copy(whole, wrong)(x), wrong(x), atol=1e-3)
