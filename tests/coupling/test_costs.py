"""What a coupling counts: the inference graph's calls alone."""

import numpy as np
import torch
from torch import nn

import fxprune


class Auxiliary(nn.Module):
    """A second head that only training calls."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.auxiliary = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4), nn.Linear(8, 50)

    def forward(self, x):
        y = self.body(x).relu().mean((2, 3))
        return (self.head(y), self.auxiliary(y)) if self.training else self.head(y)


def test_what_only_training_calls_is_not_paid_for():
    coupling = fxprune.analyze(Auxiliary(), torch.randn(2, 3, 6, 6))
    assert coupling.costs.macs(coupling.widths) == 2 * (36 * 27 * 8 + 8 * 4)
    assert "auxiliary.weight" in {m.name for m in coupling.groups["body"].members}
    halved = [4 if name == "body" else group.size for name, group in coupling.groups.items()]
    assert coupling.costs.macs(np.array(halved)) == 2 * (36 * 27 * 4 + 4 * 4)
