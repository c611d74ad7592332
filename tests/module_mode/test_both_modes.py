"""Module mode in training: watched, coupled and compared as evaluation is, as far as it can be followed."""

import numpy as np
import torch
from torch import nn

import fxprune

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Steered(nn.Module):
    """Data decide what runs."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.drop = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Dropout(0.3)
        self.mid, self.head = nn.Conv2d(16, 12, 3, padding=1), nn.Conv2d(12, 4, 1)

    def features(self, x):
        x = self.drop(torch.relu(self.norm(self.stem(x))))
        return torch.relu(self.mid(x)) if x.mean() > -9 else self.mid(x)

    def forward(self, x):
        return self.head(self.features(x))


class OnlyInTraining(Steered):
    """A layer of training alone."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Conv2d(16, 12, 1)

    def features(self, x):
        y = super().features(x)
        return y + self.extra(torch.relu(self.stem(x))) if self.training else y


class ScaledInTraining(Steered):
    """A width that steers values, in training alone."""

    def features(self, x):
        y = super().features(x)
        return y * y.shape[1] ** -0.5 if self.training else y


class Drawing(Steered):
    """A draw of numpy's decides what runs in training."""

    def features(self, x):
        y = super().features(x)
        return y * 2 if self.training and np.random.rand() > 0.5 else y


class Failing(Steered):
    def features(self, x):
        if self.training:
            raise NotImplementedError("no training here")
        return super().features(x)


def proof_of(model, **options):
    torch.manual_seed(0)
    small = fxprune.compress(model.eval(), X, channels=0.5, **options)
    assert fxprune.record(small).mode == "module" and fxprune.record(small).verification.ok
    return small, fxprune.record(small).verification


def test_both_modes_are_compared():
    small, proof = proof_of(Steered())
    assert {mode for mode, _ in proof.runs} == {"eval", "train"} == set(proof.claimed)
    assert not any("eval mode only" in note for note in proof.notes)
    small.train()(X).sum().backward()


def test_a_layer_of_training_alone_is_cut():
    small, proof = proof_of(OnlyInTraining())
    assert (small.extra.in_channels, small.extra.out_channels) == (8, 6) and "train" in proof.claimed
    assert small.train()(X).shape == (2, 4, 16, 16)


def test_a_width_that_steers_values_in_training_holds_its_group():
    small, _ = proof_of(ScaledInTraining())
    groups = fxprune.record(small).coupling.groups
    assert "steers its values" in str(groups["mid"].frozen) and groups["stem"].frozen is None


def test_training_with_draws_of_its_own_is_not_compared_and_says_so():
    state = np.random.get_state()[1].copy()
    _, proof = proof_of(Drawing())
    assert proof.claimed == ("eval",) and {mode for mode, _ in proof.runs} == {"eval"}
    assert "eval mode only: CaptureError: the model draws numbers with numpy.random" in proof.notes[-1]
    assert (np.random.get_state()[1] == state).all()


def test_training_that_raises_is_not_compared_and_says_so():
    _, proof = proof_of(Failing())
    assert proof.claimed == ("eval",) and "NotImplementedError: no training here" in proof.notes[-1]


class Guarded(Steered):
    """Training asks for a number of channels that no reader of shapes sees."""

    def features(self, x):
        y = super().features(x)
        if self.training and (12 * y.mean(1) - y.sum(1)).abs().max() > 1e-3:
            raise ValueError("no twelve channels")
        return y


def test_training_that_a_masked_model_refuses_is_not_compared_and_says_so():
    small, proof = proof_of(Guarded())
    assert proof.claimed == ("eval",) and small.mid.out_channels == 6
    assert any(note.startswith("not compared in train mode: ") and "no twelve channels" in note for note in proof.notes)
