"""Modules without weights that several calls share."""

import torch
from torch import nn

import fxprune


class Shared(nn.Module):
    """One norm, under two names, behind two branches of unlike widths."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.c, self.d = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)
        self.norm = self.again = nn.GroupNorm(1, 8, affine=False)

    def forward(self, x):
        y = self.c(self.norm(self.a(x)).relu()) + self.d(self.norm(self.b(x)).relu())
        return y + self.d(self.again(self.b(x)).relu()) + self.c(self.again(self.a(x)).relu())


def pruned(widths):
    torch.manual_seed(0)
    model, x = Shared(), torch.randn(2, 3, 4, 4)
    coupling = fxprune.analyze(model, x)
    plan = fxprune.Plan.from_widths(coupling, model, widths)
    small = fxprune.apply(model, plan)
    assert fxprune.verify(model, small, plan).ok
    return {name: module for name, module in small.named_modules() if isinstance(module, nn.GroupNorm)}


def test_each_width_gets_a_module_of_its_own():
    norms = pruned({"a": 3, "b": 5})
    assert {module.num_channels for module in norms.values()} == {3, 5}


def test_where_both_are_as_wide_one_module_serves_all():
    norms = pruned({"a": 4, "b": 4})
    assert [module.num_channels for module in norms.values()] == [4]
