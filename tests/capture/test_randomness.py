"""What Python draws is never a constant of a graph, and the user's generators stay as they were."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture.randomness import _state, owned, undrawn, untouched_rng
from fxprune.errors import CaptureError


class Masked(nn.Module):
    """SpecAugment's way: a mask drawn with numpy, in training."""

    def __init__(self, draw, always=False):
        super().__init__()
        self.a, self.b, self.draw, self.always = nn.Linear(6, 8), nn.Linear(8, 2), draw, always

    def forward(self, x):
        y = self.a(x).relu()
        return self.b(y * self.draw() if self.training or self.always else y)


DRAWS = {
    "numpy.random": lambda: torch.from_numpy((np.random.rand(1, 8) > 0.5).astype(np.float32)),
    "Python's random": lambda: 0.0 if random.random() < 0.1 else 1.0,
}


@pytest.mark.parametrize("name", DRAWS)
def test_training_mode_is_refused_by_name(name):
    before = random.getstate(), np.random.get_state()[1].tobytes()
    small = fxprune.compress(Masked(DRAWS[name]).eval(), torch.randn(2, 6), channels=0.5)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before
    assert small(torch.randn(3, 6)).shape == (3, 2)
    notes = " ".join(fxprune.record(small).verification.notes)
    assert f"draws numbers with {name}" in notes and "draw them with torch" in notes
    small.train()
    with pytest.raises(AssertionError, match="could not be captured in training mode.*draws numbers"):
        small(torch.randn(3, 6))


def test_what_draws_at_every_call_is_not_traced():
    coupling = fxprune.analyze(Masked(DRAWS["numpy.random"], always=True).eval(), torch.randn(2, 6))
    assert coupling.mode == "module" and "draws numbers with numpy.random" in coupling.why


def test_what_draws_with_torch_is():
    torch.manual_seed(0)
    small = fxprune.compress(Masked(lambda: torch.rand(1, 8)), torch.randn(2, 6), channels=0.5)
    x = torch.randn(2, 6)
    assert not torch.equal(small.train()(x), small(x))


def test_generators_are_left_as_they_were():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    with untouched_rng():
        random.random(), np.random.rand(), torch.rand(3)
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[2])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))


def test_what_is_not_drawn_from_is_not_touched(monkeypatch):
    def refuse(state):
        raise AssertionError("nothing was drawn")

    monkeypatch.setattr(torch, "set_rng_state", refuse)
    with untouched_rng():
        pass


def test_draws_of_another_thread_are_told_apart():
    """Once may be anybody."""
    runs = []

    def run():
        runs.append(1)
        if len(runs) == 1:
            other = threading.Thread(target=random.random)
            other.start(), other.join()
        return "done", net

    net = nn.ReLU()
    assert undrawn(net, run) == ("done", net) and len(runs) == 2
    with pytest.raises(CaptureError, match="Python's random and numpy.random"):
        undrawn(net, lambda: ((random.random(), np.random.rand()), net))


GLOBAL = np.random.default_rng(1)


class Owner(nn.Module):
    """Draws a mask in training, with a generator that it finds in some place of its own."""

    shared = np.random.RandomState(0)

    def __init__(self, rng=None, find=lambda net: net.rng):
        super().__init__()
        self.a, self.b, self.rng, self.find = nn.Linear(6, 8), nn.Linear(8, 2), rng, find

    def forward(self, x):
        y = self.a(x).relu()
        return self.b(y * (1.0 if self.find(self).random() > 0.5 else 0.5) if self.training else y)


class Global(Owner):
    def forward(self, x):
        y = self.a(x).relu()
        return self.b(y * GLOBAL.random() if self.training else y)


class NotRandom:
    @staticmethod
    def random():
        return 1.0


random_free = NotRandom()


class Augmentation:
    def __init__(self):
        self.settings = {"rng": [random.Random(3)]}


def closing():
    rng = np.random.default_rng(5)
    return Owner(find=lambda net: rng)


@pytest.mark.parametrize(("make", "place"), [
    (lambda: Owner(np.random.default_rng(0)), "'rng' of the model"),
    (lambda: Owner(random.Random(0)), "'rng' of the model"),
    (lambda: Owner(Augmentation(), lambda net: net.rng.settings["rng"][0]), "'rng' of the model"),
    (lambda: Owner(find=lambda net: net.shared), "'shared' of "), (closing, "'find' of the model"),
    (Global, "'GLOBAL' of "),
], ids=["numpy", "python", "held", "class", "closure", "file"])
def test_a_generator_of_the_models_own_is_found(make, place):
    model = make().eval()
    states = [_state(generator) for generator in owned(model).values()]
    small = fxprune.compress(model, torch.randn(2, 6), channels=0.5)
    assert [_state(generator) for generator in owned(model).values()] == states
    notes = " ".join(fxprune.record(small).verification.notes)
    assert "draws numbers with its own generator" in notes and place in notes
    with pytest.raises(AssertionError, match="could not be captured in training mode.*draws numbers"):
        small.train()(torch.randn(3, 6))


def test_a_generator_that_is_not_drawn_from_is_no_obstacle():
    small = fxprune.compress(nn.Sequential(Owner(np.random.default_rng(0), lambda net: random_free), nn.Linear(2, 2)),
                             torch.randn(2, 6), channels=0.5, verify=False)
    assert small.train()(torch.randn(2, 6)).shape == (2, 2)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.generator = nn.Linear(6, 8), nn.Linear(8, 2), torch.Generator().manual_seed(0)

    def forward(self, x):
        y = self.a(x).relu()
        return self.b(y * (torch.rand(len(y), 1, generator=self.generator) > 0.5) if self.training else y)


def test_a_generator_of_torch_that_the_model_owns_is_refused_by_name():
    model = Own().eval()
    before = model.generator.get_state()
    small = fxprune.compress(model, torch.randn(2, 6), channels=0.5)
    assert torch.equal(model.generator.get_state(), before)
    assert "draws numbers with its own torch.Generator" in " ".join(fxprune.record(small).verification.notes)
    with pytest.raises(AssertionError, match="could not be captured in training mode.*draw them without generator="):
        small.train()(torch.randn(2, 6))
