"""Widths that a model tells others follow what it became; what cannot be found out stays."""

import pytest
import torch
from torch import nn

import fxprune
from fxprune.rewrite import declared_widths

X = torch.randn(2, 3, 8, 8)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.out_channels = [8, 12]

    def forward(self, x):
        fine = self.one(x).relu()
        return [fine, self.two(fine).relu()]


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.num_features, self.num_classes, self.spare = 12, 5, 12
        self.build(5)

    def build(self, classes):
        self.fc = nn.Linear(self.width() if hasattr(self, "fc") else 12, classes)

    def width(self):
        return self.num_features

    def reset_classifier(self, num_classes):
        self.num_classes = num_classes
        self.build(num_classes)

    def forward_features(self, x):
        fine, coarse = self.backbone(x)
        return coarse + fine.mean((1, 2, 3), keepdim=True)

    def forward_head(self, x, pre_logits=False):
        x = x.mean((2, 3))
        return x if pre_logits else self.fc(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def small_classifier(model, **options):
    return fxprune.compress(model.eval(), X, form="module", **{"channels": 0.5, **options})


def test_what_modules_give_is_measured():
    small = small_classifier(Classifier())
    assert small.backbone.out_channels == [f.shape[1] for f in small.backbone(X)] == [4, 6]
    assert small.num_features == small.forward_features(X).shape[1] == 6
    assert small.spare == 12  # nothing says what it is


def test_groups_of_which_nothing_went_keep_their_number():
    small = small_classifier(Classifier(), groups=["backbone.one"])
    assert small.backbone.out_channels == [4, 12] and small.num_features == 12


class Elsewhere(Classifier):
    """Its builder reads a number that no measured name tells."""

    def __init__(self):
        super().__init__()
        self.inner = 4

    def width(self):
        return self.inner * 3 if self.inner * 3 == self.num_features else 0


def test_the_builder_says_what_it_reads_and_asks():
    model = Elsewhere()
    small = small_classifier(model)
    assert small.inner == 2
    small.reset_classifier(7)
    assert small(X).shape == (2, 7)
    assert model.inner == 4 and model.num_classes == 5


class Broken(Classifier):
    def reset_classifier(self, num_classes):
        raise RuntimeError("there is no other head")


def test_a_builder_that_does_not_run_on_the_original_tells_nothing():
    small = small_classifier(Broken())
    assert small.num_features == 6 and small(X).shape == (2, 5)


class Borrowed(nn.Module):
    """Reads a layer's weight without calling the layer."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        return nn.functional.linear(self.into(x).relu(), self.out.weight, self.out.bias)


def test_a_layer_that_is_not_called_says_what_its_weight_is():
    small = fxprune.compress(Borrowed().eval(), torch.randn(2, 3), channels=0.5, form="module")
    assert small.out.in_features == small.out.weight.shape[1] == 4


def broken(owner, name, monkeypatch):
    """An entry that is missing in a function of ours."""
    namespace = {"__name__": "broken"}
    exec(compile("def lookup(*args): return {}['entry']", declared_widths.__file__, "exec"), namespace)
    monkeypatch.setattr(owner, name, namespace["lookup"])


@pytest.mark.parametrize("name", ["_note", "_answer"])
def test_an_error_of_our_own_is_none_of_the_models(monkeypatch, name):
    broken(declared_widths, name, monkeypatch)
    with pytest.raises(fxprune.RuleError, match=r"a bug: rewrite raised KeyError: 'entry' \(at declared_widths.py:1\)"):
        small_classifier(Classifier())


def test_sizes_of_a_builder_that_raises_are_mere_numbers_afterwards():
    kept = []

    class Keeping(Broken):
        def reset_classifier(self, num_classes):
            kept.append(self.num_features)
            super().reset_classifier(num_classes)

    small_classifier(Keeping())
    assert kept and all(size.book.closed for size in kept)
