"""Merging without data: twins leave without a trace, by hand otherwise."""

import copy

import pytest
import torch
from torch import nn

import fxprune
from fxprune.errors import PlanError


def net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1),
                          nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).eval()
    nn.init.uniform_(model[1].running_var, 0.5, 2)
    nn.init.uniform_(model[1].running_mean, -1, 1)
    return model


X = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def test_what_a_batch_norm_makes_twins_merges_exactly():
    model = net()
    with torch.no_grad():
        # Three times the filter, and a norm that takes the three out again.
        model[0].weight[5] = 3 * model[0].weight[1]
        for tensor, factor in ((model[1].running_mean, 3.0), (model[1].running_var, 9.0)):
            tensor[5] = factor * tensor[1]
        model[3].weight[2], model[3].bias[2] = model[3].weight[0], model[3].bias[0]
    model[1].eps = 0.0
    coupling = fxprune.analyze(model, X)
    plan = fxprune.plan(coupling, model, widths={"0": 5, "3": 3}, criterion="similarity")
    assert {5, 1} - set(plan.groups["0"].kept) and {2, 0} - set(plan.groups["3"].kept)
    before = copy.deepcopy(model.state_dict())
    # Without eps, the norm of a masked channel is 0 / 0, and nothing can be compared.
    small = fxprune.apply(fxprune.merge(model, coupling, plan), plan, weights="any", verify=False)
    torch.testing.assert_close(small(X), model(X), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(fxprune.apply(model, plan, verify=False)(X), model(X), atol=1e-2)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_readers_by_hand():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]))
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[1.0, 2.0, 4.0]]))
    coupling = fxprune.analyze(model, X[:, 0, 0, :2])
    plan = fxprune.Plan.from_widths(coupling, model, {"0": 2}, criterion=lambda group, tensors:
                                    torch.tensor([2.0, 1.0, 0.0]))
    assert fxprune.merge(model, coupling, plan)[2].weight.tolist() == [[1.0, 6.0, 4.0]]


def test_a_plan_of_another_coupling():
    model = net()
    coupling = fxprune.analyze(model, X)
    other = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)))
    plan = fxprune.plan(fxprune.analyze(other, torch.randn(1, 2)), other)
    with pytest.raises(PlanError, match="must be drawn on this coupling, and its group '2.0'"):
        fxprune.merge(model, coupling, plan)
