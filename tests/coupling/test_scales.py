"""A voter's scale is that of the normalisation right behind it, and each scale is one voter's."""

import torch
from torch import nn

import fxprune
from fxprune.coupling.scales import scale_names, scales_of_voters


class Net(nn.Module):
    """``one`` and ``two`` are added; what stands behind each is the test's business."""

    def __init__(self, forward):
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
        self.norm, self.other = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.function = forward

    def forward(self, x):
        return self.out(self.function(self, x))


def scales(forward):
    coupling = fxprune.analyze(Net(forward), torch.randn(2, 3, 4, 4))
    return scales_of_voters(coupling, scale_names(coupling.groups, coupling.signature))


def test_each_voter_has_its_own():
    found = scales(lambda net, x: net.norm(net.one(x)) + net.other(net.two(x)))
    assert found == {"one.weight": "norm.weight", "two.weight": "other.weight"}


def test_a_norm_that_serves_two_voters_is_the_first_ones():
    assert scales(lambda net, x: net.norm(net.one(x)) + net.norm(net.two(x))) == {"one.weight": "norm.weight"}


def test_of_two_norms_behind_one_voter_the_first_is_its_own():
    found = scales(lambda net, x: (y := net.one(x), net.other(y) + net.norm(y) + net.two(x))[1])
    assert found == {"one.weight": "other.weight"}


def test_a_norm_behind_a_sum_is_nobodys():
    assert scales(lambda net, x: net.norm(net.one(x) + net.two(x))) == {}
