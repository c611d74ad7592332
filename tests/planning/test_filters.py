"""Criteria that compare filters, and those that read batch norms, by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import fxprune
from fxprune.planning.criteria import FPGM, LAMP, Expected, Similarity


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 1)).eval()
    norm = net[1]
    for tensor, low in ((norm.weight, 0.5), (norm.bias, -1), (norm.running_mean, -1), (norm.running_var, 0.5)):
        nn.init.uniform_(tensor, low, 2)
    return net


def scored(net: nn.Module, criterion) -> np.ndarray:
    return fxprune.score(fxprune.analyze(net, torch.zeros(1, 3, 4, 4)), net, criterion)["0"]


def test_fpgm_is_the_summed_distance(net):
    filters = net[0].weight.detach().flatten(1).double()
    np.testing.assert_allclose(scored(net, FPGM())[0], torch.cdist(filters, filters).sum(1).numpy(), rtol=1e-6)


def test_lamp_by_hand(net):
    squares = net[0].weight.detach().square().sum((1, 2, 3)).double().numpy()
    expected = [square / squares[squares >= square].sum() for square in squares]
    np.testing.assert_allclose(scored(net, LAMP())[0], expected, rtol=1e-6)


def test_expected_against_sampling(net):
    z = torch.randn(400_000, 5, generator=torch.Generator().manual_seed(0)) * net[1].weight.abs() + net[1].bias
    expected = z.relu().square().mean(0) * net[3].weight.square().sum((0, 2, 3))
    np.testing.assert_allclose(scored(net, Expected())[0], expected.detach().numpy(), rtol=2e-2)


def test_expected_without_norms_is_the_squared_norm():
    plain = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1))
    np.testing.assert_allclose(scored(plain, Expected()), scored(plain, "l2") ** 2)


def test_similarity_by_hand(net):
    norm = net[1]
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double()
    filters = torch.cat([net[0].weight.detach().flatten(1).double() * scale[:, None],
                         (norm.bias.double() - scale * norm.running_mean.double()).detach()[:, None]], 1)
    saliency = net[3].weight.detach().double().square().mean((0, 2, 3))
    pairs = saliency[:, None] * torch.cdist(filters, filters).square()
    pairs.fill_diagonal_(torch.inf)
    np.testing.assert_allclose(scored(net, Similarity())[0], pairs.min(1).values.numpy(), rtol=1e-4)


def test_twins_are_free_to_merge(net):
    with torch.no_grad():
        for tensor in (net[0].weight, net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var):
            tensor[3] = tensor[1]
    found = scored(net, Similarity())[0]
    assert found[1] == pytest.approx(0, abs=1e-12) and found[3] == pytest.approx(0, abs=1e-12) and found[0] > 1e-6
