"""Chunks and splits by one number."""

import pytest
import torch
from torch import nn

import fxprune


class Cut(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.lin, self.how, self.size = nn.Linear(8, 24), how, 12
        self.a, self.b = nn.Linear(12, 6), nn.Linear(12, 6)

    def forward(self, x):
        x = self.lin(x)
        a, b = x.chunk(2, -1) if self.how == "chunk" else \
            x.split(self.size, -1) if self.how == "attribute" else x.split(12, dim=-1)
        return self.a(a) + self.b(b)


@pytest.mark.parametrize("how, size", [("chunk", 12), ("attribute", 6)])
def test_parts_that_one_number_cuts_shrink_alike(how, size):
    torch.manual_seed(0)
    small = fxprune.compress(Cut(how).eval(), torch.randn(2, 8), channels=0.5, form="module")
    assert [small.lin.out_features, small.a.in_features, small.b.in_features] == [12, 6, 6] and small.size == size


def test_a_literal_holds_all_parts():
    held = fxprune.analyze(Cut("literal").eval(), torch.randn(2, 8), form="module").groups["lin"].frozen
    assert "split (test_pieces.py:" in str(held) and "gives it 12" in str(held)


def test_they_shrink_alike_under_a_budget_that_would_cut_them_unlike():
    torch.manual_seed(0)
    model = Cut("chunk").eval()
    with torch.no_grad():
        model.lin.weight[:12] *= 0.01
    graph, module = (fxprune.compress(model, torch.randn(2, 8), macs=0.6, form=form) for form in ("graph", "module"))
    assert graph.a.in_features < graph.b.in_features and module.a.in_features == module.b.in_features
