"""A residual net with a stem and two blocks: one group of three voters, two groups of one."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Residual(nn.Module):
    def __init__(self, width: int = 8, inner: int = 6):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.one, self.two = Block(width, inner), Block(width, inner)
        self.fc = nn.Linear(width * 4, 5)

    def forward(self, x):
        x = self.two(self.one(torch.relu(self.bn(self.stem(x)))))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


VOTERS = ("stem", "one.conv2", "two.conv2")


def residual() -> Residual:
    torch.manual_seed(0)
    model = Residual()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model
