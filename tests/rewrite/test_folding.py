"""Constants of removed channels are folded into their consumers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import fxprune
from fxprune.capture.structure import deep_copy
from fxprune.errors import InputError, VerificationError
from fxprune.passes import analysis_of
from fxprune.rewrite import folding
from tests.captioned import Captioned


def net(kernel: int, padding: int, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                          nn.Conv2d(8, 6, kernel, padding=padding, bias=bias), nn.BatchNorm2d(6), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    with torch.no_grad():
        model[0].weight[5:] = 0  # dead filters that still emit their shift
        model[1].bias[5:] = torch.tensor([0.7, -0.3, 1.5])
    return model


def folded(model: nn.Module, **kwargs: object) -> nn.Module:
    x = torch.randn(2, 3, 12, 12)
    coupling = fxprune.analyze(model, x)
    plan = fxprune.Plan.from_widths(coupling, model, {"0": 5})
    return fxprune.apply(model, plan, fold_constants=True, **kwargs)


@pytest.mark.parametrize("bias", [True, False])
def test_exact_without_padding(bias):
    model = net(3, 0, bias)
    small, x = folded(model), torch.randn(4, 3, 12, 12)
    assert torch.allclose(small(x), model(x), atol=1e-5)
    (entry,) = fxprune.record(small).folds
    assert entry.into == ("3.bias" if bias else "4.running_mean") and entry.inexact == 0


def test_padding_is_a_reported_number():
    model = net(3, 1)
    small, x = folded(model), torch.randn(4, 3, 12, 12)
    (entry,) = fxprune.record(small).folds
    assert 0 < entry.inexact < 1
    plain = fxprune.apply(model, fxprune.record(small).plan)
    assert (small(x) - model(x)).abs().max() < (plain(x) - model(x)).abs().max()


def test_compress_verifies_the_folded_model():
    model = net(1, 0)
    x = torch.randn(2, 3, 12, 12)
    small = fxprune.compress(model, x, channels=0.5, fold_constants=True)
    record = fxprune.record(small)
    assert record.verification.ok and record.folds and record.drift < 1e-5
    assert fxprune.verify(model, small, record.plan).ok


def test_a_norm_over_channels_drifts_and_says_so():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 4))
    small = fxprune.compress(model, torch.randn(3, 5), channels=0.5, fold_constants=True)
    record = fxprune.record(small)
    assert any(entry.inexact > 0 for entry in record.folds) and record.drift > 0


def test_a_norm_that_counts_what_is_zero_is_no_reason_to_refuse():
    """Each fold is exact, of nothing; the norm is over fewer channels now, as the proof has it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8, bias=False), nn.RMSNorm(8), nn.Linear(8, 4))
    small = fxprune.compress(model, torch.randn(3, 5), channels=0.5, fold_constants=True)
    record = fxprune.record(small)
    assert record.verification.ok and [entry.inexact for entry in record.folds] == [0.0]
    assert record.drift > 0.01 and f"the original is {record.drift:.1e} of its largest output off" in record.report()


def test_an_exact_fold_that_is_wrong_is_refused(monkeypatch):
    """Nothing but layers reads what goes."""
    model, x = net(1, 0), torch.randn(2, 3, 12, 12)
    monkeypatch.setattr(folding, "applied", lambda model, folds: deep_copy(model))
    with pytest.raises(VerificationError, match="held at their constants to 0.001, and differs by"):
        fxprune.compress(model, x, channels=0.5, fold_constants=True)


def test_where_random_inputs_are_not_taken_the_example_is_measured_on():
    torch.manual_seed(0)
    model, tokens = Captioned().eval(), torch.tensor([[1, 39, 2], [39, 4, 5]])
    small = fxprune.compress(model, tokens, channels=0.5, fold_constants=True)
    assert fxprune.record(small).verification.ok and fxprune.record(small).folds
    plan = fxprune.record(small).plan
    analysis = analysis_of(model, tokens)
    unknown = replace(analysis, captured=replace(analysis.captured, example=None))
    with pytest.raises(InputError, match="ValueError: no image token; pass calibration=, or example_inputs="):
        folding.fold(model, unknown, plan)
    again = folding.fold(model, unknown, plan, [tokens]).folds
    assert all(np.array_equal(a.delta, b.delta) for a, b in zip(again, fxprune.record(small).folds, strict=True))


class Made(nn.Module):
    """Torch detaches what is made on the way, or not, as somebody holds it or not."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        ramp = torch.arange(x.shape[1], dtype=x.dtype)
        return self.b(self.a(x + ramp).relu()) + torch.zeros(2, dtype=x.dtype).detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_that_are_made_on_the_way(dtype):
    torch.manual_seed(0)
    model, x = Made().to(dtype).eval(), torch.randn(3, 4, dtype=dtype)
    small = fxprune.compress(model, x, channels=0.5, fold_constants=True)
    assert fxprune.record(small).verification.ok and fxprune.record(small).folds[0].into == "b.bias"
