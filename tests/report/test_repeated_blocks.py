"""Blocks that repeat are folded, and no edge is lost."""

import torch
import torchvision
from torch import nn

from fxprune import analyze
from fxprune.report.drawing import FOLD, LAYER, drawing
from fxprune.report.repeated_blocks import folded


def drawn(model, x):
    return drawing(analyze(model, x), {})


def names(found):
    return [box.name for box in found.boxes]


def test_a_residual_net():
    whole = drawn(torchvision.models.resnet50(), torch.zeros(1, 3, 64, 64))
    short = folded(whole)
    folds = {box.name: box for box in short.boxes if box.kind == FOLD}
    assert list(folds) == ["2 more like layer2.1", "4 more like layer3.1"]
    assert folds["2 more like layer2.1"].holds == tuple(f"layer2.{k}.conv{n}" for k in (2, 3) for n in (1, 2, 3))
    hidden = {name for box in folds.values() for name in box.holds}
    assert {box.name for box in whole.boxes if box.kind == LAYER} == hidden | {
        box.name for box in short.boxes if box.kind == LAYER}
    assert all(u < v for u, v in short.edges)
    place = names(short).index("4 more like layer3.1")
    assert [short.boxes[u].name for u, v in short.edges if v == place] == ["add"]
    assert {short.boxes[v].name for u, v in short.edges if u == place} == {"layer4.0.conv1", "layer4.0.downsample.0"}


def test_a_chain_of_many():
    net = nn.Sequential(*(nn.Conv2d(3 if k == 0 else 4, 4, 1) for k in range(50)))
    assert names(folded(drawn(net, torch.zeros(1, 3, 4, 4)))) == ["input", "0", "49 more like 0", "output"]


def test_blocks_that_differ_stay():
    net = nn.Sequential(*(nn.Conv2d(3 + k, 4 + k, 1) for k in range(5)))
    whole = drawn(net, torch.zeros(1, 3, 4, 4))
    assert folded(whole) is whole
    two = drawn(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), torch.zeros(1, 3, 4, 4))
    assert folded(two) is two
