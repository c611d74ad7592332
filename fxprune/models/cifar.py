"""The residual networks of the CIFAR experiments.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016), section 4.2. A 3x3 stem of
16 channels is followed by three stages of n blocks, of 16, 32 and 64 channels, on maps of 32, 16 and 8 pixels a side;
then global pooling and one linear layer. Two convolutions a block, one in the stem and the linear layer make the
depth 6n + 2: 20, 32, 44, 56, 110 and 1202 in the paper.

Where a stage begins, its first block halves the map and doubles the channels, and the shortcut has to follow. The
paper names two ways:

- option A, what it used on CIFAR: every second pixel, and zeros for the channels that are new. No parameters; for a
  pruner, those zeros are channels that nothing produces.
- option B, the default here: a 1x1 convolution with stride 2 and its batch norm. Then every stage is a coupling group
  of its own, with n + 1 voters: the stem or the projection, and the last convolution of each block.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["A", "B"]

WIDTHS = (16, 32, 64)


def cifar_resnet(depth: int, num_classes: int = 10, shortcut: Shortcut = "B") -> CifarResNet:
    """A CIFAR ResNet of any depth 6n + 2.

    >>> sum(p.numel() for p in cifar_resnet(44, shortcut="A").parameters())
    658586
    >>> cifar_resnet(18)
    Traceback (most recent call last):
        ...
    ValueError: depth must be 6n + 2 (20, 32, 44, 56, 110, ...), got 18; the nearest is 20
    """
    return CifarResNet(depth, num_classes, shortcut)


def resnet20(num_classes: int = 10, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-20.

    >>> sum(p.numel() for p in resnet20(shortcut="A").parameters()), sum(p.numel() for p in resnet20().parameters())
    (269722, 272474)
    """
    return CifarResNet(20, num_classes, shortcut)


def resnet32(num_classes: int = 10, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-32.

    >>> sum(p.numel() for p in resnet32(shortcut="A").parameters())
    464154
    """
    return CifarResNet(32, num_classes, shortcut)


def resnet56(num_classes: int = 10, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-56.

    >>> sum(p.numel() for p in resnet56(shortcut="A").parameters()), sum(p.numel() for p in resnet56().parameters())
    (853018, 855770)
    """
    return CifarResNet(56, num_classes, shortcut)


def resnet110(num_classes: int = 10, shortcut: Shortcut = "B") -> CifarResNet:
    """ResNet-110.

    >>> sum(p.numel() for p in resnet110(shortcut="A").parameters())
    1727962
    """
    return CifarResNet(110, num_classes, shortcut)


class CifarResNet(nn.Module):
    """The whole network.

    Args:
        depth: 6n + 2, where n is the number of blocks a stage.
        num_classes: length of the logits.
        shortcut: "A" (subsample and pad with zero channels) or "B" (1x1 projection) where a stage begins.

    Shape: images [N, 3, H, W], normalised, to logits [N, num_classes]. H and W are 32 for CIFAR; any size that two
    halvings leave non-empty will do.
    """

    def __init__(self, depth: int, num_classes: int = 10, shortcut: Shortcut = "B") -> None:
        super().__init__()
        blocks = _blocks_per_stage(depth)
        if shortcut not in ("A", "B"):
            raise ValueError(f'shortcut must be "A" (zero padding) or "B" (projection), got {shortcut!r}')
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        small, middle, large = WIDTHS
        self.conv1 = nn.Conv2d(3, small, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(small)
        self.layer1 = _stage(blocks, small, small, 1, shortcut)
        self.layer2 = _stage(blocks, small, middle, 2, shortcut)
        self.layer3 = _stage(blocks, middle, large, 2, shortcut)
        self.fc = nn.Linear(large, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), both convolutions 3x3, the first with the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, then `extra` channels of zeros.

    The zeros come last, so that a prefix of the wide channels is a prefix of the narrow ones too.
    """

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra = extra
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        return f"extra={self.extra}, stride={self.stride}"


def _blocks_per_stage(depth: int) -> int:
    blocks, rest = divmod(depth - 2, 6)
    if rest == 0 and blocks >= 1:
        return blocks
    nearest = 6 * max(1, round((depth - 2) / 6)) + 2
    raise ValueError(f"depth must be 6n + 2 (20, 32, 44, 56, 110, ...), got {depth}; the nearest is {nearest}")


def _stage(blocks: int, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, _shortcut(inputs, outputs, stride, shortcut))
    rest = [BasicBlock(outputs, outputs, 1, nn.Identity()) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def _shortcut(inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if shortcut == "A":
        return PadShortcut(outputs - inputs, stride)
    projection = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(outputs))


def _initialise(module: nn.Module) -> None:
    """He et al., "Delving Deep into Rectifiers" (ICCV 2015): normal, scaled by fan-out, for all that a ReLU follows."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
