"""Small nets whose coupling is plain to see."""

import torch
from torch import nn

from fxprune import analyze
from fxprune.coupling.coupling import Coupling


class Branches(nn.Module):
    """conv1 + conv2 are added; the sum and conv3 lie side by side in head; lost is never run; loose is apart."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 4, 1)
        self.head = nn.Conv2d(12, 6, 1)
        self.fc = nn.Linear(6, 5)
        self.lost = nn.Linear(7, 7)

    def forward(self, x):
        x = self.conv1(x)
        x = x + self.norm(self.conv2(x))
        x = self.head(torch.cat([x, self.conv3(x)], 1))
        return self.fc(x.mean((2, 3)))


class Tied(nn.Module):
    """Two linear layers share one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.again.weight = self.first.weight

    def forward(self, x):
        return self.out(self.again(torch.relu(self.first(x))))


def branches() -> Coupling:
    return analyze(Branches(), torch.zeros(1, 3, 8, 8))
