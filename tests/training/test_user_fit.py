"""What stands between analysing and voting in `compress(train=fit)`."""

import copy

import pytest
import torch
from torch import nn

from fxprune import analyze
from fxprune.errors import InputError
from fxprune.training import DWGL
from fxprune.training.user_fit import trained


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def test_fit_gets_an_ordered_copy_and_the_penalty(net):
    coupling, before, seen = analyze(net, torch.zeros(1, 3)), copy.deepcopy(net.state_dict()), []

    def fit(model, penalty):
        norms = model[0].weight.norm(dim=1)
        seen.append((bool((norms[:-1] >= norms[1:]).all()), penalty.direction, model is net))
        penalty.proximal_(model, 1e6)

    result = trained(net, coupling, fit)
    assert seen == [(True, (1.0, 4.0), False)] and not result[0].weight.any()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))


def test_a_penalty_of_ones_own_and_a_returned_module(net):
    coupling = analyze(net, torch.zeros(1, 3))
    mine = DWGL(coupling, 0.1, direction=(0, 8))
    averaged = copy.deepcopy(net)

    def fit(model, penalty):
        assert penalty is mine and torch.equal(model[0].weight, net[0].weight)
        return averaged

    assert trained(net, coupling, fit, mine, by=None) is averaged


def test_bad_input(net):
    coupling = analyze(net, torch.zeros(1, 3))
    with pytest.raises(InputError, match="train must be a function of the model and the penalty, got int"):
        trained(net, coupling, 3)
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(InputError, match="the penalty must be over this model's coupling"):
        trained(net, coupling, print, DWGL(analyze(other, torch.zeros(1, 3))))
