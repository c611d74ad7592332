"""LayerDrop: layers that Python skips by a number that it draws are chosen by that number in the training graph."""

import pytest
import torch
from torch import nn

import fxprune


class Dropped(nn.Module):
    """Residual layers, each skipped at random."""

    def __init__(self, norm=lambda: nn.LayerNorm(16), p=0.3):
        super().__init__()
        self.p, self.first, self.last = p, nn.Linear(4, 16), nn.Linear(16, 2)
        self.layers = nn.ModuleList(nn.Sequential(norm(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16))
                                    for _ in range(2))

    def skips(self):
        return self.training and torch.rand([]) < self.p

    def add(self, x, layer):
        return x + layer(x)

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            if self.skips():
                continue
            x = self.add(x, layer)
        return self.last(x)


class Kept(Dropped):
    """Asks the other way round."""

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            keep = not self.training or torch.rand(1) > 0.3
            if keep:
                x = self.add(x, layer)
        return self.last(x)


class Written(Dropped):
    """A layer that changes what it is given."""

    def add(self, x, layer):
        x += layer(x)
        return x


class Narrower(Dropped):
    """What is skipped gives another shape."""

    def forward(self, x):
        x = self.first(x)
        if not self.skips():
            x = self.last(x)
        return x.sum(-1)


class Steered(Dropped):
    """Decides by what the input holds as well."""

    def forward(self, x):
        if self.training and torch.rand([]) < x.mean():
            x = x + 1
        return self.last(self.first(x))


def drawn(module, x, draws, monkeypatch):
    """The output of a module whose draws are these."""
    left = iter(draws)
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: torch.full((), next(left)).reshape(
        () if args == ([],) else (1,)))
    try:
        return module(x)
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize("kind", [Dropped, Kept])
def test_every_outcome_is_that_of_the_original(kind, monkeypatch):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(5, 4)
    small = fxprune.compress(model, x, channels=0.5)
    check = fxprune.record(small).verification
    assert check.ok and [mode for mode, _ in check.runs] == ["eval", "eval", "train", "train", "train"]
    # Nothing is pruned: the same weights, so that outputs can be held against each other for each outcome.
    coupling = fxprune.analyze(model, x)
    widths = {name: group.size for name, group in coupling.prunable.items()}
    whole = fxprune.apply(model, fxprune.Plan.from_widths(coupling, model, widths))
    model.train(), whole.train()
    outcomes = {draws: drawn(model, x, draws, monkeypatch) for draws in ((.1, .1), (.1, .9), (.9, .1), (.9, .9))}
    assert len({round(float(out.detach().sum()), 5) for out in outcomes.values()}) == 4
    for draws, expected in outcomes.items():
        assert torch.allclose(drawn(whole, x, draws, monkeypatch), expected, atol=1e-6)


def test_a_layer_that_is_skipped_gets_no_gradient(monkeypatch):
    small = fxprune.compress(Dropped(), torch.randn(5, 4), channels=0.5).train()
    drawn(small, torch.randn(5, 4), (.1, .9), monkeypatch).sum().backward()
    gradients = [small.get_submodule(f"layers.{k}.1").weight.grad for k in (0, 1)]
    assert not gradients[0].any() and gradients[1].any()


@pytest.mark.parametrize("model, why", [
    (Dropped(lambda: nn.BatchNorm1d(16)), "whether something is written into"),
    (Written(), "whether something is written into"),
    (Narrower(), "must give as much as it is given"),
    (Steered(), "reads a tensor's contents"),
], ids=["batch norm", "in place", "another shape", "the input decides, too"])
def test_what_cannot_be_chosen_is_refused_in_training_alone(model, why):
    small = fxprune.compress(model, torch.randn(5, 4), channels=0.5)
    check = fxprune.record(small).verification
    assert check.claimed == ("eval",) and why in check.notes[-1]
    assert small.eval()(torch.randn(3, 4)).shape[0] == 3
    with pytest.raises(AssertionError, match=why):
        small.train()(torch.randn(3, 4))


def test_a_wrong_choice_is_found():
    model, x = Dropped(), torch.randn(5, 4)
    small = fxprune.compress(model, x, channels=0.5)
    node = next(node for node in small.trained.nodes if node.target is torch.where)
    node.args = (node.args[0], node.args[2], node.args[2])
    small.train(False).train(True)
    with pytest.raises(fxprune.VerificationError, match="layers_1|last"):
        fxprune.verify(model, small, fxprune.record(small).plan)
