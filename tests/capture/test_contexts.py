"""Regions without gradients and of mixed precision end with the call, whatever is raised."""

import copy
import pickle
import runpy

import pytest
import torch
from torch import nn

import fxprune


class Regions(nn.Module):
    """Both kinds, one in the other, and a layer that refuses other widths inside."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x, shift):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.b(self.a(x).relu()) + shift
        return self.c(y.float())


def modes():
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")


@pytest.mark.parametrize("how", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
                         ids=["as it is", "copied", "unpickled"])
def test_modes_are_restored_whatever_is_raised(how):
    example = (torch.randn(2, 4), torch.randn(2, 8))
    small = how(fxprune.compress(Regions(), example, channels=0.5, verify=False))
    before = modes()
    for method in (small, small.forward):
        assert method(*example).shape == (2, 2) and modes() == before
        with pytest.raises(RuntimeError):
            method(torch.randn(2, 5), example[1])
        assert modes() == before
        with pytest.raises(RuntimeError):
            method(example[0], torch.randn(3, 7))
        assert modes() == before
        with torch.no_grad(), pytest.raises(RuntimeError):
            method(example[0], torch.randn(3, 7))
        assert modes() == before
    assert small(*example).requires_grad


class Inference(nn.Module):
    """A region of inference mode, with one inside in which gradients are recorded all the same."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.recorded = []

    def forward(self, x):
        with torch.inference_mode():
            y = self.a(x).relu()
            if torch.is_grad_enabled():
                y = y + 1
            with torch.inference_mode(False):
                z = self.b(torch.ones_like(x[:, :1]).repeat(1, 8))
        return y, self.c(z)


class Decorated(Inference):
    @torch.inference_mode()
    def forward(self, x):
        return self.c(self.b(self.a(x).relu()))


class DecoratedPart(Inference):
    def forward(self, x):
        return self.c(self.part(x).clone())

    @torch.inference_mode()
    def part(self, x):
        return self.b(self.a(x).relu())


def kinds(out):
    return [(t.is_inference(), t.requires_grad) for t in (out if isinstance(out, tuple) else (out,))]


@pytest.mark.parametrize("kind, expected", [
    (Inference, [(True, False), (False, True)]), (Decorated, [(True, False)]), (DecoratedPart, [(False, True)])])
@pytest.mark.parametrize("form", ["graph", "module"])
def test_inference_mode_is_entered_by_the_result(kind, expected, form, tmp_path):
    model, x = kind(), torch.randn(3, 4)
    small = fxprune.compress(model, x, channels=0.5, form=form)
    assert fxprune.record(small).mode == form and fxprune.record(small).verification.ok
    assert kinds(model(x)) == expected
    for module in (small, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert kinds(module(x)) == expected
        assert kinds(module.train()(x)) == expected
        with pytest.raises(RuntimeError):
            module(torch.randn(3, 5))
        assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    assert model(x) is not None and not torch.is_inference_mode_enabled()


def test_inference_mode_stands_in_the_written_source_and_not_in_a_program(tmp_path):
    model, x = DecoratedPart(), torch.randn(3, 4)
    small = fxprune.compress(model, x, channels=0.5)
    fxprune.save(small, tmp_path / "saved")
    assert kinds(fxprune.load(tmp_path / "saved", model=model)(x)) == [(False, True)]
    written = runpy.run_path(str(tmp_path / "saved" / "model.py"))
    assert kinds(written["load"](tmp_path / "saved")(x)) == [(False, True)]
    program = torch.export.load(tmp_path / "saved" / "model.pt2").module()
    assert torch.allclose(program(x), small(x))
