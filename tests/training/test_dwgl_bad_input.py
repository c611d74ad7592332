"""What DWGL refuses, in words that say what to write instead; and nothing is half-done."""

import copy

import pytest
import torch
from torch import nn

from fxprune import analyze
from fxprune.errors import InputError
from fxprune.training import DWGL, Ramp, WarmUp


@pytest.mark.parametrize(("options", "words"), [
    ({"strength": -1e-4}, r"strength must be a finite number >= 0, got -0.0001; write strength=1e-4"),
    ({"strength": float("nan")}, "strength must be a finite number"),
    ({"direction": (4.0, 1.0)}, r"direction must not decrease.*got \(4.0, 1.0\); write direction=\(1.0, 4.0\)"),
    ({"direction": (-1.0, 1.0)}, "each end of direction must be a finite number >= 0"),
    ({"direction": 4.0}, "direction must be two numbers"),
    ({"power": 0.0}, "power must be a finite number > 0"),
    ({"schedule": WarmUp}, "schedule must be"),
    ({"groups": ["stemm"]}, "unknown group or layer 'stemm'; did you mean 'stem'"),
    ({"groups": ["fc"]}, "'fc' is frozen \\(model output"),
])
def test_arguments(coupling, options, words):
    with pytest.raises(InputError, match=words):
        DWGL(coupling, **options)


@pytest.mark.parametrize("make", [lambda: Ramp(until=1.5), lambda: Ramp(until=0.5, rate=0), lambda: WarmUp(0)])
def test_schedules(make):
    with pytest.raises(InputError, match="write"):
        make()


def test_not_a_coupling(model):
    with pytest.raises(InputError, match=r"coupling must be what fxprune.analyze returns, got Residual"):
        DWGL(model)


def test_a_coupling_of_another_model(coupling):
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    with pytest.raises(InputError, match="the coupling must come from this model, but .*; write coupling = fxprune"):
        DWGL(coupling)(other)


def test_a_model_changed_since(model, coupling):
    dwgl = DWGL(coupling)
    dwgl(model)
    model.one.conv1 = nn.Conv2d(8, 5, 3, padding=1, bias=False)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"'one.conv1.weight' is \[6, 8, 3, 3\] in the coupling and \[5, 8, 3, 3\]"):
        dwgl.proximal_(model, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_not_a_module(coupling):
    with pytest.raises(InputError, match="model must be a torch.nn.Module, got dict"):
        DWGL(coupling)({})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_norms_that_are_not_finite(model, coupling, value):
    dwgl = DWGL(coupling, 1.0)
    with torch.no_grad():
        model.one.conv1.weight[3, 0, 0, 0] = value
    before = copy.deepcopy(model.state_dict())
    for call in (lambda: dwgl(model), lambda: dwgl.proximal_(model, 0.1), lambda: dwgl.votes(model),
                 lambda: dwgl.balance_(model)):
        with pytest.raises(InputError, match="'one.conv1.weight' holds 1 infinite or NaN values"):
            call()
    assert all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
               for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_a_negative_rate_and_threshold(model, coupling):
    with pytest.raises(InputError, match="lr must be a finite number >= 0"):
        DWGL(coupling).proximal_(model, -0.1)
    with pytest.raises(InputError, match="threshold must be a finite number >= 0"):
        DWGL(coupling).votes(model, -1e-3)
    with pytest.raises(InputError, match="min_channels must be an integer >= 1"):
        DWGL(coupling).votes(model, min_channels=0)
    with pytest.raises(InputError, match="unknown group 'conv'"):
        DWGL(coupling).votes(model)["conv"]


def test_a_ramp_without_its_model(coupling):
    dwgl = DWGL(coupling, schedule=Ramp(until=0.5, every=1))
    with pytest.raises(InputError, match=r"write dwgl.step\(model\)"):
        dwgl.step()


def test_the_state_of_another_penalty(coupling):
    with pytest.raises(InputError, match="the state must be that of a DWGL"):
        DWGL(coupling).load_state_dict({"steps": 3})
    with pytest.raises(InputError, match="the state must be that of a DWGL"):
        DWGL(coupling).load_state_dict(DWGL(coupling, consumers=True).state_dict())


def test_a_model_on_the_meta_device(model, coupling):
    with pytest.raises(InputError, match="meta device"):
        DWGL(coupling)(model.to("meta"))


def test_nothing_to_prune():
    net = nn.Linear(3, 2)
    with pytest.raises(InputError, match="at least one group that may be pruned"):
        DWGL(analyze(net, torch.zeros(1, 3)))
