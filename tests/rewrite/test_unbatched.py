"""Inputs without a batch: a convolution's channels are counted from the end of the shape."""

import pytest
import torch
from torch import nn

import fxprune


class Unbatched(nn.Module):
    """Grouped convolutions over inputs without a batch, as modules or as functions."""

    def __init__(self, functional: bool, into: int):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=into), nn.Conv2d(8, 2, 1)
        self.functional = functional

    def forward(self, x):
        y = self.a(x).relu()
        if self.functional:
            return self.c(nn.functional.conv2d(y, self.b.weight, self.b.bias, groups=self.b.groups).relu())
        return self.c(self.b(y).relu())


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize(("groups", "policy", "left"), [(8, "within", 4), (2, "whole", 1), (2, "within", 2)])
def test_grouped_convolutions_keep_their_groups_equal(functional, groups, policy, left):
    torch.manual_seed(0)
    model, x = Unbatched(functional, groups), torch.randn(3, 8, 8)
    small = fxprune.compress(model, x, channels=0.5, policy=fxprune.Policy(grouped=policy))
    assert fxprune.record(small).after.widths["a"] == 4
    if functional:
        call = next(node for node in small.graph.nodes if node.target is nn.functional.conv2d)
        assert call.kwargs["groups"] == left
    else:
        assert (small.b.groups, small.b.in_channels, small.b.out_channels) == (left, 4, 4)


def test_what_removed_channels_emit_is_folded_all_the_same():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)), \
        torch.randn(3, 8, 8)
    with torch.no_grad():  # channels that are constants: their weights are zero, their biases are not
        model[0].weight[:4] = 0
        model[0].bias[:4] = 1.0
    small = fxprune.compress(model, x, channels=0.5, groups=["0"], fold_constants=True)
    torch.testing.assert_close(small(x), model(x))
