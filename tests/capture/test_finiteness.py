"""In training a model may ask whether its values are finite: a graph takes the way of finite ones, and asserts them."""

import pytest
import reference
import torch
from torch import nn

import fxprune


class Clamping(nn.Module):
    """Detectors guard against overflow in training."""

    def __init__(self, overflows, always=False):
        super().__init__()
        self.a, self.b, self.overflows, self.always = nn.Linear(6, 16), nn.Linear(16, 3), overflows, always

    def forward(self, x):
        y = self.a(x).relu()
        if (self.training or self.always) and self.overflows(y):
            y = y.clamp(-1000, 1000)
        return self.b(y)


ASKED = {
    "isfinite": lambda y: not torch.isfinite(y).all(),
    "isinf or isnan": lambda y: torch.isinf(y).any() or torch.isnan(y).any(),
    "not isfinite": lambda y: (~y.isfinite()).any().item(),
    "a count": lambda y: int(y.isnan().sum()) > 0,
    "both at once": lambda y: bool((y.isnan() | y.isinf()).any()),
}


@pytest.mark.parametrize("asks", ASKED.values(), ids=ASKED)
def test_training_is_captured_and_asserts_that_values_are_finite(asks):
    model = Clamping(asks).eval()
    small = fxprune.compress(model, torch.randn(2, 6), channels=0.5)
    record = fxprune.record(small)
    assert record.mode == "graph" and {mode for mode, _ in record.verification.runs} == {"eval", "train"}
    reference.assert_agrees(model, small, record.plan.keep, lambda batch: (torch.randn(batch, 6),))
    huge = torch.full((2, 6), torch.inf)
    assert small.eval()(huge).shape == (2, 3)
    with pytest.raises(AssertionError, match="captured where all values are finite.*test_finiteness.py"):
        small.train()(huge)


def test_in_evaluation_nothing_is_assumed():
    coupling = fxprune.analyze(Clamping(ASKED["isfinite"], always=True).eval(), torch.randn(2, 6))
    assert coupling.mode == "module" and "reads a tensor's contents" in coupling.why


@pytest.mark.parametrize("asks", [lambda y: y.sum() > 0, lambda y: (y.isfinite() & (y > 0)).all()],
                         ids=["the values themselves", "them, too"])
def test_what_else_is_read_ends_the_capture(asks):
    small = fxprune.compress(Clamping(asks).eval(), torch.randn(2, 6), channels=0.5)
    assert "reads a tensor's contents" in fxprune.record(small).verification.notes[-1]


class Cleaning(nn.Module):
    """An index that is made of the question holds something where a value is none."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        if self.training:
            x = x.masked_fill(torch.isnan(x), 0.5)
            x = torch.where(x.isfinite(), x, torch.zeros_like(x))
        return self.b(self.a(x).relu())


def test_what_is_not_read_by_python_is_not_assumed():
    model = Cleaning().eval()
    small = fxprune.compress(model, torch.randn(2, 6), channels=0.5).train()
    x = torch.tensor([[torch.nan, 1.0, torch.inf, 0.0, 2.0, 3.0]])
    assert torch.allclose(small(x), small(torch.tensor([[0.5, 1.0, 0.0, 0.0, 2.0, 3.0]])))


class LayerDrop(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x):
        y = self.a(x)
        skipped = self.training and torch.rand([]) < 0.1
        return self.c(y if skipped else y + self.b(y).relu())


def test_a_decision_that_is_drawn_is_told_from_one_by_data():
    small = fxprune.compress(LayerDrop().eval(), torch.randn(2, 6), channels=0.5)
    (note,) = fxprune.record(small).verification.notes
    assert "decides in Python by a number that it draws" in note and "set its probability to 0" in note
