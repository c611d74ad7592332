"""Settings that no run in single precision would show: they are the original's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune.verification import validation


class Normed(nn.Module):
    """Both ways to give a norm its epsilon."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.c = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        y = self.b(self.norm(self.a(x)))
        return self.c(F.rms_norm(y, y.shape[-1:], eps=1e-5).relu())


@pytest.fixture
def case(monkeypatch):
    torch.manual_seed(0)
    model, x = Normed(), torch.randn(5, 6)
    small = fxprune.compress(model, x, channels=0.5)
    monkeypatch.setattr(validation, "DOUBLE_LIMIT", 0)  # as for a model of any size
    return model, small, fxprune.record(small).plan


def test_an_epsilon_of_a_layer_is_the_originals(case):
    model, small, plan = case
    assert fxprune.verify(model, small, plan).dtype == "float32"
    small.norm.eps = 2e-5
    with pytest.raises(fxprune.VerificationError, match=r"norm\.eps must be 1e-05 as in the original, got 2e-05"):
        fxprune.verify(model, small, plan)


def test_an_epsilon_in_a_call_is_the_originals(case):
    model, small, plan = case
    node = next(node for node in small.graph.nodes if node.name == "rms_norm")
    node.kwargs = {**node.kwargs, "eps": 2e-5}
    small.recompile()
    with pytest.raises(fxprune.VerificationError, match="'rms_norm' must be given 1e-05 as in the original, got 2e-05"):
        fxprune.verify(model, small, plan)
