"""NetAdapt: every step is the best of all that save enough, held against cuts by hand."""

import numpy as np
import pytest
import torch

import fxprune
from fxprune.errors import BudgetError, InputError
from fxprune.searching import netadapt

X = torch.zeros(2, 6)


def test_every_step_is_the_best_of_those_that_save_enough(net, coupling, nearness):
    before = [p.clone() for p in net.parameters()]
    found = netadapt(net, X, nearness, macs=0.7, step=0.15, decay=0.5)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    whole, left, now = coupling.costs.macs(coupling.widths), 1.0, net
    for k, step in enumerate(found.steps):
        limit = max(left - 0.15 * 0.5 ** k, 0.7) * whole
        values = {}
        analysed = fxprune.analyze(now, X)
        for place, name in enumerate(analysed.costs.groups):
            for width in range(analysed.groups[name].size - 1, 0, -1):
                widths = np.where(np.arange(len(analysed.widths)) == place, width, analysed.widths)
                if analysed.groups[name].frozen is None and analysed.costs.macs(widths) <= limit:
                    small = fxprune.compress(now, X, widths={name: width}, verify=False)
                    values[name] = nearness(small), width, small
                    break
        best = max(values, key=lambda name: values[name][0])
        assert (step.group, step.width) == (best, values[best][1])
        assert {**step.rejected, best: step.value} == pytest.approx({name: v[0] for name, v in values.items()})
        now = values[best][2]
        left = step.share
    assert len(found.steps) >= 3 and left <= 0.7
    torch.testing.assert_close(found.module(X + 1), now(X + 1))
    done = fxprune.record(found.module)
    assert done.verification.ok and done.overall.steps == len(found.steps)
    assert done.overall.after.macs == round(left * whole)


def test_what_is_trained_goes_on_trained(net, nearness):
    seen = []

    def fit(small):
        seen.append(small.head.bias[0].item())
        with torch.no_grad():
            small.head.bias[0] += 1

    found = netadapt(net, X, lambda small: 0.0, params=0.6, step=0.2, fit=fit, groups=["layer1.0", "layer2.0"])
    start = net.head.bias[0].item()
    assert found.module.head.bias[0].item() == pytest.approx(start + len(found.steps))
    assert len(found.steps) > 1
    tried = [k for k, step in enumerate(found.steps) for _ in (step, *step.rejected)]
    assert seen == pytest.approx([start + k for k in tried])
    assert {step.group for step in found.steps} <= {"layer1.0", "layer2.0"}


class Stairs:
    """A time that falls with every four channels of each group."""

    def priced(self, coupling, model, check=True):
        assert check  # once: of what comes of the model it knows nothing
        return lambda widths: float(sum(-(-int(width) // 4) for width in widths))


def test_the_resource_may_be_a_time(net):
    found = netadapt(net, X, lambda small: 0.0, latency=0.8, step=0.05, table=Stairs())
    # 3 + 3 + 4 + 4 stairs and the head's one: nothing is saved before a whole stair goes.
    widths = fxprune.analyze(net, X).widths
    total = sum(-(-int(width) // 4) for width in widths)
    assert all(step.width % 4 == 0 for step in found.steps)
    shares = [1 - k / total for k in range(1, len(found.steps) + 1)]
    assert [step.share for step in found.steps] == pytest.approx(shares)


@pytest.mark.parametrize("arguments, words", [
    ({}, "got none"), ({"macs": 0.5, "params": 0.5}, "got macs, params"), ({"macs": 1.5}, "macs must be a fraction"),
    ({"macs": 0.5, "step": 0}, "step must be a fraction"), ({"macs": 0.5, "decay": 2}, "decay must be a fraction"),
    ({"latency": 0.5}, "belong together"), ({"macs": 0.5, "table": Stairs()}, "belong together"),
])
def test_bad_arguments(net, nearness, arguments, words):
    with pytest.raises(InputError, match=words):
        netadapt(net, X, nearness, **arguments)


def test_a_step_that_no_group_can_make(net, nearness):
    with pytest.raises(BudgetError, match=r"must save 90\.00% of the macs by one group alone"):
        netadapt(net, X, nearness, macs=0.05, step=0.9)
