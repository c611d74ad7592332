"""Data that lead a model's Python elsewhere than in the recorded runs: what cannot be judged there is judged on others,
and what is wrong is still found."""

import pytest
import torch
from torch import nn

import fxprune


class Either(nn.Module):
    """One of two branches of different width, each with an operator that mixes channels."""

    def __init__(self):
        super().__init__()
        self.a, self.first, self.c = nn.Linear(4, 24), nn.LayerNorm(24), nn.Linear(24, 2)
        self.b, self.second, self.d = nn.Linear(4, 16), nn.LayerNorm(16), nn.Linear(16, 2)

    def forward(self, x):
        if x.sum().item() > 0:
            return self.c(self.first(self.a(x)))
        return self.d(self.second(self.b(x)))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", range(3))
def test_each_branch_is_compared_along_its_own_run(sign, seed):
    torch.manual_seed(seed)
    model = Either()
    small = fxprune.compress(model, sign * torch.rand(3, 4), channels=0.5)
    check = fxprune.record(small).verification
    assert (small.a.out_features, small.b.out_features) == (12, 8)
    assert check.ok and len(check.runs) == 3 and check.max_error < 1e-12


@pytest.mark.parametrize("layer", ["first", "second"])
def test_a_wrong_branch_is_found(layer):
    torch.manual_seed(0)
    model, example = Either(), torch.rand(3, 4)
    small = fxprune.compress(model, example, channels=0.5)
    getattr(small, layer).eps = 0.1
    with pytest.raises(fxprune.VerificationError, match=layer):
        fxprune.verify(model, small, fxprune.record(small).plan)
