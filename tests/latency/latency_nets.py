"""Nets whose layers are of many kinds."""

import torch
from torch import nn


class Block(nn.Module):
    """A residual block with batch norms."""

    def __init__(self, width, inner):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))).relu()


class Residual(nn.Module):
    """A stem, two like blocks, a pooled classifier."""

    def __init__(self, width=16, inner=24):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Block(width, inner), Block(width, inner))
        self.fc = nn.Linear(width, 10)

    def forward(self, x):
        x = self.blocks(self.bn(self.stem(x)).relu())
        return self.fc(x.mean((2, 3)))


class Narrowing(nn.Sequential):
    """Most of the time goes where the image is large, most of the weights lie where it is small."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1), nn.MaxPool2d(4),
                         nn.Conv2d(32, 64, 3), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 8, 1))


class Mixed(nn.Module):
    """Depthwise and grouped convolutions, layer and group norms, a concatenation, a flatten, a transposed
    convolution."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.deep = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.grouped = nn.Conv2d(24, 32, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(4, 32)
        self.up = nn.ConvTranspose2d(32, 12, 2, stride=2)
        self.ln = nn.LayerNorm(12)
        self.fc = nn.Linear(12 * 4, 6)

    def forward(self, x):
        x = torch.cat([self.a(x), self.b(x)], 1)
        x = self.up(self.norm(self.grouped(self.deep(x).relu())))
        x = self.ln(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
