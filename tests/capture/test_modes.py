"""``train()`` and ``eval()`` of the result do what they do in the original."""

import copy
import pickle

import pytest
import reference
import torch
from torch import nn
from torch.nn import functional as F

import fxprune
from fxprune.capture.patches import TRAINING, replaced

X = torch.randn(2, 3, 8, 8)


class Frozen(nn.Module):
    """Keeps its batch norm in inference mode, as fine-tuned detectors do."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.b(self.norm(self.a(x)))


class Switching(nn.Module):
    """Has an auxiliary head in training only."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = F.dropout(F.relu(self.a(x)), 0.5, training=self.training)
        return (self.b(x), self.c(x)) if self.training else self.b(x)


def test_what_the_original_holds_in_inference_mode_stays_there():
    small = fxprune.compress(Frozen(), X, channels=0.5)
    for module in (small, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert not module.train().norm.training and module.a.training
    assert fxprune.record(small).verification.ok


def test_two_graphs_over_the_same_submodules():
    model = Switching()
    small = fxprune.compress(model, X, channels=0.5)
    assert set(small.state_dict()) == set(model.state_dict())
    for module in (small, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert len(module.train()(X)) == 2
        assert isinstance(module.eval()(X), torch.Tensor)
        assert fxprune.record(module).plan == fxprune.record(small).plan
    assert {mode for mode, _ in fxprune.record(small).verification.runs} == {"eval", "train"}


def test_the_mode_of_the_original_is_kept():
    for mode in (True, False):
        model = Switching().train(mode)
        assert fxprune.compress(model, X, channels=0.5).training is mode and model.training is mode


class Drops(nn.Module):
    """Reads a number that it drew, in training only."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x, scale):
        y = self.a(x).relu() * scale
        return self.b(y * 0 if self.training and torch.rand([]) < 0.5 else y)


def test_a_missing_training_graph_takes_its_arguments_and_says_so():
    small = fxprune.compress(Drops().eval(), (torch.randn(2, 6), torch.ones(())), channels=0.5)
    assert small(torch.randn(3, 6), torch.ones(())).shape == (3, 3)
    small.train()
    with pytest.raises(AssertionError, match="could not be captured in training mode"):
        small(torch.randn(3, 6), torch.ones(()))


class Asking(nn.Module):
    """Asks for its mode in a way that is no truth test."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), how

    def forward(self, x):
        return self.b(self.a(x).relu() * self.how(self))


@pytest.mark.parametrize("how", [
    lambda net: 2 if net.training is True else 1, lambda net: 2 if net.training == True else 1,  # noqa: E712
    lambda net: 1 + int(net.training), lambda net: {False: 1, True: 2}[net.training],
    lambda net: 2 if getattr(net, "training", False) else 1])
def test_however_a_model_asks_for_its_mode_both_are_captured(how):
    model = Asking(how).eval()
    small = fxprune.compress(model, X, channels=0.5)
    assert {mode for mode, _ in fxprune.record(small).verification.runs} == {"eval", "train"}
    keep = fxprune.record(small).plan.keep
    reference.assert_agrees(model, small, keep, lambda batch: (torch.randn(batch, 3, 8, 8),))


def test_scripted_modules_keep_a_mode_of_their_own():
    layer = torch.jit.script(nn.Dropout(0.5))
    with replaced({TRAINING: lambda read, module: read(module)}):
        assert layer.training is True and layer.eval().training is False
        fresh = nn.ReLU()
        fresh.training = 3
        assert fresh.training == 3 and vars(fresh)["training"] == 3
        del fresh.training
        with pytest.raises(AttributeError, match="training"):
            print(fresh.training)
    assert "training" not in vars(nn.Module)
