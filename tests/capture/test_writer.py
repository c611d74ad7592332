"""Weights that a forward makes: replaced by those of the model's own layers, or used."""

import pytest
import torch
from torch import nn

import fxprune

X = torch.randn(2, 6)


class Switching(nn.Module):
    """For short inputs it makes another kind of layer in its forward, and gives it the weights of the old one."""

    def __init__(self, keeps=True):
        super().__init__()
        self.layer, self.out, self.keeps = nn.Linear(6, 8), nn.Linear(8, 3), keeps

    def forward(self, x):
        layer = nn.Linear(6, 8)
        if self.keeps:
            layer.weight, layer.bias = self.layer.weight, self.layer.bias
        return self.out(layer(x).relu())


@pytest.mark.parametrize("form", ["graph", "module"])
def test_weights_that_are_replaced_are_no_part_of_the_graph(form):
    torch.manual_seed(0)
    model = Switching().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = fxprune.compress(model, X, channels=0.5, form=form)
    record = fxprune.record(small)
    assert record.mode == form and record.coupling.mode == "graph" and record.verification.ok
    assert small.layer.weight.shape == (4, 6)
    assert small.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_that_are_used_are_refused_by_name():
    coupling = fxprune.analyze(Switching(keeps=False).eval(), X)
    assert coupling.mode == "module" and "test_writer.py:20" in coupling.why
