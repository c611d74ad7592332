"""Nets whose own Python fixes widths that a trial's cut does not show."""

import torch
from torch import nn


class Even(nn.Module):
    """Of odd widths its Python makes other numbers, which a trial's even cut does not show."""

    def __init__(self):
        super().__init__()
        self.into, self.mid, self.out = nn.Linear(6, 12), nn.Linear(12, 16), nn.Linear(16, 3)
        self.width = 12

    def forward(self, x):
        x = self.into(x).view(len(x), self.width // 2 * 2)
        return self.out(self.mid(x).relu())


class InStep(nn.Module):
    """One layer is read in the other's width. At a trial's widths, 4 and 9, its Python comes to 9, as it should."""

    def __init__(self):
        super().__init__()
        self.into, self.mid, self.out = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(24, 3)

    def forward(self, x):
        y = self.into(x)
        wide = y.shape[-1]
        return self.out(torch.cat([y, self.mid(x).view(len(x), wide + 5 * (8 // wide // 2))], 1))
