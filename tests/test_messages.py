"""Every failure says the constraint, what was received, and what to write instead; and the model stays as it was."""


import pytest
import torch
from torch import nn

import fxprune


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


X = torch.randn(2, 3, 8, 8)


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        raise ValueError("no such luck")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x, y):
        return self.a(x + y)


def compress(**kwargs):
    return lambda: fxprune.compress(net(), X, **kwargs)


def nan_weights():
    model = net()
    model[0].weight.data[0, 0, 0, 0] = float("nan")
    return fxprune.compress(model, X)


def applied_twice():
    model = net()
    coupling = fxprune.analyze(model, X)
    plan = fxprune.plan(coupling, model, channels=0.5)
    return fxprune.apply(fxprune.apply(model, plan), plan)


def other_weights():
    model = net()
    plan = fxprune.plan(fxprune.analyze(model, X), model, channels=0.5)
    model[0].weight.data += 1
    return fxprune.apply(model, plan)


def other_model():
    model = net()
    plan = fxprune.plan(fxprune.analyze(model, X), model, channels=0.5)
    return fxprune.apply(nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 4, 3)), plan)


def scripted():
    return fxprune.compress(torch.jit.script(net()), X)


def quantized():
    return fxprune.compress(torch.ao.nn.quantized.Linear(4, 4), torch.randn(1, 4))


CASES = {
    "no module": (lambda: fxprune.compress("resnet18"), fxprune.InputError, "torch.nn.Module, got str"),
    "nothing to prune": (lambda: fxprune.compress(nn.Sequential(nn.ReLU()), X), fxprune.UnsupportedError, "prun"),
    "only an output layer": (lambda: fxprune.compress(nn.Linear(4, 4), torch.randn(1, 4)), fxprune.UnsupportedError,
                             "prun"),
    "wrong shape": (lambda: fxprune.compress(net(), torch.randn(2, 5, 8, 8)), fxprune.FxpruneError, "channels"),
    "wrong rank": (lambda: fxprune.compress(net(), torch.randn(8)), fxprune.FxpruneError, "run on its example inputs"),
    "wrong dtype": (lambda: fxprune.compress(net(), X.double()), fxprune.InputError,
                    "dtype torch.float32, got torch.float64"),
    "integers": (lambda: fxprune.compress(net(), X.long()), fxprune.FxpruneError, "example"),
    "wrong device": (lambda: fxprune.compress(net(), X.to("meta")), fxprune.InputError, "device cpu, got"),
    "wrong type": (lambda: fxprune.compress(net(), 3), fxprune.InputError, "tuple of positional arguments"),
    "too many inputs": (lambda: fxprune.compress(net(), (X, X)), fxprune.InputError, "must fit forward"),
    "unknown keyword": (lambda: fxprune.compress(net(), {"z": X}), fxprune.InputError, "must fit forward"),
    "forward raises": (lambda: fxprune.compress(Raises(), torch.randn(1, 4)), fxprune.CaptureError, "no such luck"),
    "nothing to infer": (lambda: fxprune.compress(Two()), fxprune.InputError, "forward needs 2"),
    "non-finite weights": (nan_weights, fxprune.InputError, "'0.weight' holds 1"),
    "budget of zero": (compress(macs=0.0), fxprune.BudgetError, "macs"),
    "budget above one": (compress(params=1.5), fxprune.BudgetError, "1.5"),
    "budget that is no number": (compress(channels="half"), fxprune.BudgetError, "half"),
    "two budgets": (compress(macs=0.5, params=0.5), fxprune.BudgetError, "macs.*params"),
    "unreachable budget": (compress(macs=0.001), fxprune.BudgetError, "smallest"),
    "unknown criterion": (compress(criterion="l3"), fxprune.InputError, "did you mean 'l1', 'l2'"),
    "unknown vote": (compress(vote="union_"), fxprune.InputError, "unknown vote 'union_'; did you mean"),
    "unknown scope": (compress(scope="locally"), fxprune.FxpruneError, "scope"),
    "unknown group": (compress(groups=["O"]), fxprune.InputError, "'O'"),
    "unknown layer to ignore": (compress(ignore=["conv9"]), fxprune.InputError, "conv9"),
    "round_to": (compress(round_to=0), fxprune.FxpruneError, "round_to"),
    "scripted": (scripted, fxprune.UnsupportedError, "scripted"),
    "quantized": (quantized, fxprune.UnsupportedError, "quantized"),
    "plan applied twice": (applied_twice, fxprune.PlanError, "applied once"),
    "plan for other weights": (other_weights, fxprune.PlanError, "other weights"),
    "plan for another model": (other_model, fxprune.PlanError, "0.weight"),
    "no plan": (lambda: fxprune.apply(net(), {}), fxprune.InputError, "must be a fxprune.Plan"),
    "no record": (lambda: fxprune.record(net()), fxprune.InputError, "fxprune.compress"),
    "explain an unknown layer": (lambda: fxprune.analyze(net(), X).explain("0", "7"), fxprune.InputError, "'7'"),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case):
    call, kind, words = CASES[case]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert isinstance(caught.value, fxprune.FxpruneError)
