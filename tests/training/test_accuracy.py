"""The default `compress` on a trained net: a change that makes plans worse is seen here."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune.planning.criteria import Random

datasets = pytest.importorskip("sklearn.datasets")


class Residual(nn.Module):
    """A stem, two residual blocks and a concatenating one."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(nn.ModuleDict({
            "a": nn.Conv2d(width, width, 3, padding=1, bias=False), "na": nn.BatchNorm2d(width),
            "b": nn.Conv2d(width, width, 3, padding=1, bias=False), "nb": nn.BatchNorm2d(width)}) for _ in range(2))
        self.left, self.right = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = F.relu(x + block["nb"](block["b"](F.relu(block["na"](block["a"](x))))))
        x = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def digits():
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:1400]], y[order[:1400]], x[order[1400:]], y[order[1400:]]


@pytest.fixture(scope="module")
def trained(digits):
    x, y, *_ = digits
    torch.manual_seed(0)
    model = Residual()
    # Weight decay is what makes norms speak of importance: without it they keep the scale that they began with.
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    for _ in range(12):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def accuracy(model, digits):
    *_, x, y = digits
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


def test_one_shot_keeps_more_than_chance_would(trained, digits):
    x = digits[0][:2]
    whole = accuracy(trained, digits)
    default = accuracy(fxprune.compress(trained, x, macs=0.65), digits)
    chance = [accuracy(fxprune.compress(trained, x, macs=0.65, criterion=Random(seed), verify=False),
                       digits) for seed in range(5)]
    assert whole > 0.95
    assert default > 0.8
    assert default > sum(chance) / len(chance) + 0.3


def test_a_little_fine_tuning_wins_it_back(trained, digits):
    x, y, *_ = digits
    small = fxprune.compress(copy.deepcopy(trained), x[:2], macs=0.5).train()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(small.parameters(), 2e-3)
    for rows in torch.randperm(len(x)).repeat(4).split(64):
        optimizer.zero_grad()
        F.cross_entropy(small(x[rows]), y[rows]).backward()
        optimizer.step()
    assert accuracy(small, digits) > accuracy(trained, digits) - 0.03
