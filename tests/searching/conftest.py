"""A net whose best widths are known: what one layer carries matters, and what the other carries does not."""

import logging

import pytest
import torch
from torch import nn

import fxprune

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(logging.WARNING)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layer2(self.layer1(x)))


@pytest.fixture(scope="session")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="session")
def coupling(net):
    return fxprune.analyze(net, torch.zeros(2, 6))


@pytest.fixture(scope="session")
def nearness(net):
    """How near the outputs stay: higher is better."""
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = net(x)

    def evaluate(small):
        with torch.no_grad():
            return -(small(x) - want).square().mean().item()

    return evaluate
